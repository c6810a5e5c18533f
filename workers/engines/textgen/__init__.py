"""The parts of the text engine: reading a request, sampling, continuous batching, and shaping the answer."""
