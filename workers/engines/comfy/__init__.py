"""The parts of the ComfyUI engine. Only `workers.engines.comfyui` uses them."""
