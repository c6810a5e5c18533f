"""What `inferq up` does: one machine's whole stack as child processes, started, watched, restarted and
stopped.

The process a user started (`launch`) holds the lifeline; the supervisor (`__main__`) runs under the shim and
starts the rest. It must not import any of the processes.
"""
