"""Redis: keys, Lua, ready sets, leases, replies, the Celery app, and the scheduler process (`python -m queues`).

It owns queue order and who may run what. It must not know HTTP, engines or files.
"""
