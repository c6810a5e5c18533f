"""Runs in the engines' environment: which options of these models their engines do not know.

A list of `[module, class, source, options]` as JSON on stdin, the complaints as JSON on stdout.
"""

import importlib
import json
import sys

from workers.engines.asgi import EngineApp
from workers.engines.launch import Launch

complaints = []
for module, name, source, options in json.load(sys.stdin):
    engine_type = getattr(importlib.import_module(f"workers.engines.{module}"), name)
    launch = Launch(model=source, served_name="m", device="cuda", options=options)
    try:
        engine_type(launch, EngineApp("m"))
    except ValueError as error:
        if "unknown options" in str(error) or "must be a" in str(error):
            complaints.append(f"{module}: {error}")
print(json.dumps(complaints))
