"""The HTTP process (`python -m api`): accept, await, stream and query jobs.

It owns the wire: routes, keys, status codes, server-sent events, the landing page. It must not decide order, run
models, or touch Redis and SQL except through `queues` and `storage`.
"""
