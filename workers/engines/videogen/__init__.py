"""The parts of the video engine: reading a request, planning frames and sizes, running the pipeline, encoding."""
