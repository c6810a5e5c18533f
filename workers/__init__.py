"""Node agent, replica and engines: the processes that run models on one host. This file imports nothing."""
