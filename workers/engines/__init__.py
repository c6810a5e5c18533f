"""Engine servers: one small OpenAI-shaped HTTP server per engine, each run as its own process in its own
environment.

Owns what runs inside the child that holds the weights. Must not import the gateway, and is never imported
by it: a replica knows an engine by its socket only.
"""
