"""Counting the tokens of a prompt while the model's thread pads others."""

import subprocess
from pathlib import Path

import pytest

from tests.engines.process import ENVIRONMENT, ROOT, demo_model, engines_python

PADDED = """
import sys
from pathlib import Path
import torch
if sys.argv[1] == "demo-image":
    from workers.engines.imaging.prompts import Prompts
    from workers.engines.imaging.sources import Source, load
    pipe = load(Source(Path(sys.argv[2]), torch.float32))
    count = Prompts(pipe).tokens
else:
    from workers.engines.videogen.pipeline import Director, Fit
    director = Director(sys.argv[2], "cpu", Fit("float32", "none", False, False), False)
    pipe, count = director.pipeline, lambda text: director.check_text(text, "prompt")
shared = pipe.tokenizer._tokenizer
pipe.tokenizer(["red"], padding="max_length", max_length=16, truncation=True)
before = shared.padding, shared.truncation
assert None not in before
count("red")
print((shared.padding, shared.truncation) == before)
"""


@pytest.mark.parametrize("name", ["demo-image", "demo-video"])
def test_counting_leaves_the_tokenizer_of_the_model_alone(name: str) -> None:
    model: Path = demo_model(name)
    argv = [engines_python(), "-c", PADDED, name, str(model)]
    done = subprocess.run(argv, cwd=ROOT, env=ENVIRONMENT, check=False, capture_output=True, text=True)
    assert done.stdout.split()[-1:] == ["True"], done.stderr
