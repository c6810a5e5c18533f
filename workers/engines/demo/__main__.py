"""Command line of the demo models: builds what is missing."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# Before torch: its OpenMP threads spin while they wait for each other, and on a machine with other work to do a
# spinning wait costs a hundred times what it waits for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from transformers.utils import logging as transformers_logging

from workers.engines.demo import bench, bgem3, chat, embed, kokoro, qwen_vision, rerank, video, vision
from workers.engines.demo.shelf import build

ALWAYS = (chat.RECIPE, embed.RECIPE, rerank.RECIPE, video.RECIPE, vision.RECIPE)
ON_REQUEST = (
    *(bench.CHAT_RECIPE, bench.EMBED_RECIPE),
    bgem3.RECIPE,
    kokoro.RECIPE,
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
