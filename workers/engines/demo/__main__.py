"""Command line of the demo models: builds what is missing, two at a time."""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from workers.engines.demo.shelf import Recipe, build, is_seen

ALWAYS = {
    # The longest first, so that the last ones end together.
    "demo-asr": "asr:RECIPE",
    "demo-image": "image:RECIPE",
    "demo-chat": "chat:RECIPE",
    "demo-vision": "vision:RECIPE",
    "demo-rerank": "rerank:RECIPE",
    "demo-punc": "punc:RECIPE",
    "demo-embed": "embed:RECIPE",
    "demo-controlnet": "image:CONTROLNET_RECIPE",
    "demo-vad": "vad:RECIPE",
    "demo-video": "video:RECIPE",
}
"""The models of the shipped configuration: name to module and recipe. Only what is built is imported."""
FOR_TESTS = {
    "demo-paraformer": "paraformer:RECIPE",
    "demo-whisper": "whisper:RECIPE",
    "demo-spk": "speakers:RECIPE",
    "demo-bge-m3": "bgem3:RECIPE",
    "demo-image-video": "video:PICTURE_RECIPE",
    "demo-qwen-vision": "qwen_vision:RECIPE",
    # Made of others, so they come last.
    "demo-image-single": "image:SINGLE_RECIPE",
    "demo-asr-onnx": "asr_onnx:RECIPE",
}
ON_REQUEST = {
    "bench-chat-130m": "bench:CHAT_RECIPE",
    "bench-embed-small": "bench:EMBED_RECIPE",
    "demo-kokoro": "kokoro:RECIPE",  # needs packages that are not among the engines'
}
EVERY = {**ALWAYS, **FOR_TESTS, **ON_REQUEST}


def recipe_of(name: str) -> Recipe:
    module, _, attribute = EVERY[name].partition(":")
    found: Recipe = getattr(importlib.import_module(f"workers.engines.demo.{module}"), attribute)
    assert found.name == name
    return found


def build_one(name: str, out: Path) -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    build(recipe_of(name), out)


def build_all(names: list[str], out: Path, jobs: int) -> int:
    """Each in a process of its own; 0 when all of them are built."""

    def one(name: str) -> int:
        argv = [sys.executable, "-m", "workers.engines.demo", "--out", str(out), "--only", name]
        return subprocess.run(argv, check=False).returncode

    wanted = [name for name in names if not is_seen(out / name)]
    with ThreadPoolExecutor(jobs) as pool:
        return max(pool.map(one, wanted), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="workers.engines.demo", description="Build small models for demos and tests."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that holds the models")
    parser.add_argument(
        "--only", action="append", choices=sorted(EVERY), help="just this one; may be repeated"
    )
    parser.add_argument("--tests", action="store_true", help="also those that only tests need")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time")
    given = parser.parse_args()
    names = given.only or [*ALWAYS, *(FOR_TESTS if given.tests else ())]
    if len(names) > 1:
        sys.exit(build_all(names, given.out, given.jobs))
    build_one(names[0], given.out)


if __name__ == "__main__":
    main()
