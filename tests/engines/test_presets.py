"""The blocks for well-known models: the configuration takes them, and their engines know every option."""

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from inferq.config import Settings
from inferq.engine import find_engine
from tests.engines.process import ENVIRONMENT, ROOT, engines_python
from workers.replica import options_of

PRESETS = ROOT / "examples" / "presets.yaml"
CLASSES = {
    "embed": "EmbedEngine",
    "rerank": "RerankEngine",
    "image": "ImageEngine",
    "video": "VideoEngine",
    "asr": "AsrEngine",
    "speech": "SpeechEngine",
    "vision": "VisionEngine",
    "remote": "RemoteEngine",
}


def settings(file: Path) -> Settings:
    return Settings.model_validate(yaml.safe_load(file.read_text()) | {"home": "/home/inferq"})


def complaints(given: Settings) -> list[str]:
    asked: list[Any] = [
        [model.engine, CLASSES[model.engine], model.source, options_of(model, given.home)]
        for model in given.models.values()
        if model.engine in CLASSES
    ]
    argv = [engines_python(), "-m", "tests.engines.option_names"]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env=ENVIRONMENT,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_presets_are_legal_and_their_engines_know_their_options() -> None:
    given = settings(PRESETS)
    assert all(find_engine(model.engine) for model in given.models.values())
    assert complaints(given) == []


def test_the_shipped_configuration_too_and_a_wrong_option_would_be_seen() -> None:
    shipped = settings(ROOT / "scheduler_config.yaml")
    assert complaints(shipped) == []
    shipped.models["demo-image"].options["colour"] = "red"
    assert "colour" in complaints(shipped)[0]
