"""How each engine is started."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from inferq.config import Settings
from inferq.config.settings import EngineSettings
from inferq.engine import Command, Launch, find_engine
from workers import adapters
from workers.replica import _nice


def launch(**more: Any) -> Launch:
    given: dict[str, Any] = {
        "model": "chat",
        "source": "/models/chat",
        "socket": Path("/run/s"),
        "device": "cuda:1",
        "slots": 8,
        "media": Path("/store"),
        "python": Path("/env/bin/python"),
    }
    return Launch(**given | more)


def flags(command: Command) -> dict[str, str]:
    """`--name value` pairs; a flag without a value has an empty one."""
    found: dict[str, str] = {}
    words = [*command.argv[3:], "--end"]
    for word, following in pairwise(words):
        if word.startswith("--"):
            found[word] = "" if following.startswith("--") else following
    return found


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("text", "workers.engines.text"),
        ("embed", "workers.engines.embed"),
        ("noop", "workers.engines.noop"),
        ("vllm", "vllm.entrypoints.openai.api_server"),
    ],
)
def test_each_is_registered_and_starts_its_module(name: str, module: str) -> None:
    command = find_engine(name).command(launch())
    assert command.argv[:3] == ("/env/bin/python", "-m", module)


def test_our_own_servers() -> None:
    command = adapters.TEXT.command(launch(options={"kv_gib": 2, "dtype": "float32"}, args=("--grace", "3")))
    given = flags(command)
    assert json.loads(given.pop("--options")) == {"kv_gib": 2, "dtype": "float32"}
    assert given == {
        "--model": "/models/chat",
        "--served-name": "chat",
        "--uds": "/run/s",
        "--slots": "8",
        "--media": "/store",
        "--device": "cuda",
        "--grace": "3",
    }


def test_vllm() -> None:
    options = {
        "max_model_len": 4096,
        "enable_auto_tool_choice": True,
        "enable_prefix_caching": False,
        "quantization": None,
        "limit_mm_per_prompt": {"image": 2},
        "tool_call_parser": "hermes",
    }
    given = flags(adapters.VLLM.command(launch(options=options, args=("--swap-space", "1"))))
    assert json.loads(given.pop("--limit-mm-per-prompt")) == {"image": 2}
    assert given == {
        "--model": "/models/chat",
        "--served-model-name": "chat",
        "--uds": "/run/s",
        "--max-num-seqs": "8",
        "--allowed-media-domains": "/",
        "--max-model-len": "4096",
        "--enable-auto-tool-choice": "",
        "--no-enable-prefix-caching": "",
        "--tool-call-parser": "hermes",
        "--swap-space": "1",
    }


def test_vllm_on_a_cpu() -> None:
    command = adapters.VLLM.command(launch(device="cpu:0", options={"dtype": "bfloat16", "max_num_seqs": 2}))
    given = flags(command)
    assert (given["--enforce-eager"], given["--dtype"], given["--max-num-seqs"]) == ("", "bfloat16", "2")
    assert command.env["VLLM_CPU_KVCACHE_SPACE"] == "1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["--allowed-media-domains", "/"]),
        ({"allowed_media_domains": []}, ["--allowed-media-domains", "/"]),
        (
            {"allowed_media_domains": ["a.example", "b.example"]},
            ["--allowed-media-domains", "a.example", "b.example"],
        ),
        ({"allowed_media_domains": None}, []),
    ],
)
def test_vllm_fetches_from_no_host_but_those_of_its_configuration(
    options: dict[str, Any], words: list[str]
) -> None:
    argv = list(adapters.VLLM.command(launch(options=options)).argv)
    start = argv.index("--allowed-media-domains") if words else 0
    assert argv[start : start + len(words)] == words
    assert argv.count("--allowed-media-domains") == bool(words)


@pytest.mark.parametrize("engine", [adapters.TEXT, adapters.VLLM])
def test_a_model_on_disk_needs_no_hub(engine: Any) -> None:
    assert engine.command(launch()).env["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in engine.command(launch(source="Qwen/Qwen3-0.6B")).env


def test_an_engine_on_the_processor_runs_below_normal_priority() -> None:
    assert (_nice("cpu:0", None), _nice("cuda:0", None)) == (10, 0)
    assert _nice("cpu:0", EngineSettings(nice=0)) == 0
    assert _nice("cuda:1", EngineSettings(nice=3)) == 3
    assert _nice("cuda:1", EngineSettings()) == 0


def test_an_engine_may_have_a_second_environment() -> None:
    tree = {"engines": {"vllm-gcu": {"kind": "vllm"}, "text": {}}}
    settings = Settings.model_validate(tree)
    assert [settings.kind_of(name) for name in ("vllm-gcu", "text", "noop")] == ["vllm", "text", "noop"]
