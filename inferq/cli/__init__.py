"""The command line. It speaks HTTP to a server; what works without one starts the process that owns it.

It must not import `api`, `queues`, `workers`, `storage` or `watchers`.
"""
