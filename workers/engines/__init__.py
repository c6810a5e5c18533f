"""Engine servers: one small OpenAI-shaped HTTP server per engine, each run as its own process in its own
environment.

Owns what runs inside the child that holds the weights. Must not import the gateway, and is never imported
by it: a replica knows an engine by its socket only.
"""

import os

# Before any of them imports torch: its OpenMP threads spin while they wait for each other, and on a machine with other
# work to do a spinning wait costs a hundred times what it waits for (seen: 6 tokens/s in place of 600).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
