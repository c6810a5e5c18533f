"""Measures what inferq costs: each bar of `docs/benchmarks.md`, against the engine alone where there is one.

It starts stacks of its own and measures them from outside: what is measured runs as users run it. Of inferq it imports
the library only (configuration, the shim). The bars of the queue alone (`queue_scripts`, `queue_celery`) call `queues`,
as an api process or a replica does.
"""
