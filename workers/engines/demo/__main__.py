"""Command line of the demo models: builds what is missing."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# Before torch: its OpenMP threads spin while they wait for each other, and on a machine with other work to do a
# spinning wait costs a hundred times what it waits for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from transformers.utils import logging as transformers_logging

from workers.engines.demo import (
    asr,
    bench,
    bgem3,
    chat,
    embed,
    image,
    kokoro,
    paraformer,
    punc,
    qwen_vision,
    rerank,
    vad,
    video,
    vision,
)
from workers.engines.demo.shelf import build

ALWAYS = (
    *(chat.RECIPE, embed.RECIPE, rerank.RECIPE, vision.RECIPE),
    *(image.RECIPE, image.CONTROLNET_RECIPE, video.RECIPE),
    *(asr.RECIPE, vad.RECIPE, punc.RECIPE),
)
ON_REQUEST = (
    *(bench.CHAT_RECIPE, bench.EMBED_RECIPE),
    bgem3.RECIPE,
    image.SINGLE_RECIPE,
    kokoro.RECIPE,
    paraformer.RECIPE,
    qwen_vision.RECIPE,
    video.PICTURE_RECIPE,
)


def main() -> None:
    recipes = {recipe.name: recipe for recipe in (*ALWAYS, *ON_REQUEST)}
    parser = argparse.ArgumentParser(
        prog="workers.engines.demo", description="Build small models for demos and tests."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder that holds the models")
    parser.add_argument(
        "--only", action="append", choices=sorted(recipes), help="just this one; may be repeated"
    )
    given = parser.parse_args()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for recipe in [recipes[name] for name in given.only] if given.only else ALWAYS:
        build(recipe, given.out)


if __name__ == "__main__":
    main()
