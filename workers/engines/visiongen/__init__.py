"""The parts of the vision engine: reading a request, loading a processor, and generating one answer."""
