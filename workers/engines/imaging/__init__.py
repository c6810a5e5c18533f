"""The parts of the image engine: reading requests, pictures and prompts, running pipelines, writing answers."""
