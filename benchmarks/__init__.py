"""Measures what inferq costs: each bar of `docs/benchmarks.md`, against the engine alone where there is one.

It starts stacks of its own and measures them from outside. Of inferq it imports the library only (configuration, the
shim); what is measured runs as users run it.
"""
