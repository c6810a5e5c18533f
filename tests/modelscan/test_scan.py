"""Models are recognised by their files, and hostile files do no harm."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferq.config import Settings
from inferq.modelscan import Found, scan, suggestion, unconfigured


def safetensors(path: Path, shapes: dict[str, list[int]], dtype: str = "F16") -> None:
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()
    }
    raw = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 8)


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf(path: Path, **pairs: Any) -> None:
    body = b""
    for key, value in pairs.items():
        name = key.replace("__", ".")
        body += text(name) + (
            struct.pack("<I", 8) + text(value) if isinstance(value, str) else struct.pack("<II", 4, value)
        )
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + body)


def put(folder: Path, **files: Any) -> Path:
    """A folder with files; `__` in a name is a dot, JSON unless it is text."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        content = value if isinstance(value, str) else json.dumps(value)
        (folder / name.replace("__", ".")).write_text(content)
    return folder


def weights(folder: Path, name: str = "model.safetensors") -> Path:
    safetensors(folder / name, {"a": [10, 10], "b": [7]})
    return folder


def only(folder: Path) -> Found:
    (found,) = scan(folder)
    return found


LM = {"architectures": ["QwenForCausalLM"], "max_position_embeddings": 4096, "torch_dtype": "bfloat16"}


def test_a_chat_model(tmp_path: Path) -> None:
    put(
        weights(tmp_path / "org" / "qwen"),
        config__json=LM,
        tokenizer_config__json={"chat_template": "{{ x }}"},
    )
    found = only(tmp_path)
    assert found.id == "org/qwen"
    assert found.facts() == {
        "type": "chat",
        "engine": "vllm",
        "engines": ["vllm", "text"],
        "family": "QwenForCausalLM",
        "size_bytes": found.size,
        "parameters": 107,
        "dtype": "bfloat16",
        "context": 4096,
    }
    assert found.size == sum(file.stat().st_size for file in (tmp_path / "org" / "qwen").iterdir())


def test_without_a_template_it_completes(tmp_path: Path) -> None:
    put(weights(tmp_path / "base"), config__json=LM)
    assert only(tmp_path).kind.type == "completion"


@pytest.mark.parametrize(
    ("config", "quantisation", "parameters"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq-4bit", None),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes-4bit", None),
        ({"quant_method": "fp8"}, "fp8", None),
    ],
)
def test_quantisation(tmp_path: Path, config: dict[str, Any], quantisation: str, parameters: None) -> None:
    put(tmp_path / "q", config__json={**LM, "quantization_config": config})
    safetensors(tmp_path / "q" / "model.safetensors", {"layer.qweight": [4, 4]}, "I32")
    kind = only(tmp_path).kind
    assert (kind.quantisation, kind.parameters) == (quantisation, parameters)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"config__json": {"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}}},
            ("chat", "vllm"),
        ),
        ({"config__json": {"architectures": ["BertForSequenceClassification"]}}, ("rerank", "rerank")),
        (
            {"config__json": {"architectures": ["BertForSequenceClassification"]}, "modules__json": []},
            ("rerank", "rerank"),
        ),
        ({"config__json": {"architectures": ["BertModel"]}, "modules__json": []}, ("embedding", "embed")),
        ({"config__json": {"architectures": ["BertModel"], "model_type": "bert"}}, ("embedding", "embed")),
        ({"config__json": {"architectures": ["WhisperForConditionalGeneration"]}}, ("asr", "asr")),
        ({"model_index__json": {"_class_name": "StableDiffusionXLPipeline"}}, ("image", "image")),
        ({"model_index__json": {"_class_name": "FluxPipeline"}}, ("image", "image")),
        ({"model_index__json": {"_class_name": "CogVideoXPipeline"}}, ("video", "video")),
        ({"model_index__json": {"_class_name": "WanImageToVideoPipeline"}}, ("video", "video")),
        ({"config__yaml": "model: SenseVoiceSmall\n", "model__pt": "x"}, ("asr", "asr")),
    ],
)
def test_families(tmp_path: Path, files: dict[str, Any], expected: tuple[str, str | None]) -> None:
    put(weights(tmp_path / "m"), **files)
    facts = only(tmp_path).facts()
    assert (facts["type"], facts.get("engine")) == expected


@pytest.mark.parametrize(
    ("files", "role"),
    [
        ({"config__yaml": "a: 1\nmodel: FsmnVADStreaming\n", "model__pt": "x"}, "vad"),
        ({"config__yaml": "model: CTTransformer", "model__pt": "x"}, "punctuation"),
        ({"config__json": {"_class_name": "ControlNetModel"}}, "controlnet"),
        ({"config__json": {"_class_name": "AutoencoderKL"}}, "vae"),
        ({"adapter_config__json": {"base_model_name_or_path": "org/base"}}, "lora"),
    ],
)
def test_parts_have_a_role_and_no_suggestion(tmp_path: Path, files: dict[str, Any], role: str) -> None:
    put(weights(tmp_path / "part"), **files)
    found = only(tmp_path)
    assert (found.kind.type, found.kind.role) == (None, role)
    assert suggestion(found, accelerated=True) is None


def test_kokoro(tmp_path: Path) -> None:
    put(tmp_path / "kokoro", config__json={"istftnet": {}, "plbert": {}}, kokoro__pth="x")
    (tmp_path / "kokoro" / "voices").mkdir()
    facts = only(tmp_path).facts()
    assert (facts["type"], facts["engine"], facts["family"]) == ("tts", "speech", "kokoro")


def test_a_piper_voice(tmp_path: Path) -> None:
    put(tmp_path / "voices", en__onnx="x", en__onnx__json={"espeak": {"voice": "en"}, "phoneme_id_map": {}})
    put(tmp_path / "other", net__onnx="x")
    found = only(tmp_path)
    assert (found.id, found.kind.type, found.kind.family) == ("voices/en.onnx", "tts", "piper")


def test_gguf(tmp_path: Path) -> None:
    gguf(
        tmp_path / "llama.gguf",
        general__architecture="llama",
        general__file_type=15,
        llama__context_length=8192,
    )
    kind = only(tmp_path).kind
    assert (kind.type, kind.family, kind.quantisation, kind.context) == ("chat", "llama", "Q4_K_M", 8192)


@pytest.mark.parametrize(
    ("tensor", "family"),
    [
        ("cond_stage_model.transformer.text_model.x", "SD1.5"),
        ("conditioner.embedders.1.model.x", "SDXL"),
        ("double_blocks.0.img_attn.x", "Flux"),
        ("model.diffusion_model.joint_blocks.0.x", "SD3"),
    ],
)
def test_a_single_file_of_pictures(tmp_path: Path, tensor: str, family: str) -> None:
    name = "dream.safetensors"
    safetensors(tmp_path / name / name, {tensor: [3, 4], "model.diffusion_model.y": [2]})
    found = only(tmp_path)
    assert found.id == "dream.safetensors/dream.safetensors"
    assert (found.kind.type, found.kind.family, found.kind.parameters) == ("image", family, 14)
    said = yaml.safe_load(suggestion(found, accelerated=False) or "")
    assert said == {"models": {"dream": {"engine": "image", "source": f"models/{found.id}", "type": "image"}}}


@pytest.mark.parametrize(
    ("tensor", "role"),
    [
        ("lora_unet_x.lora_down.weight", "lora"),
        ("control_model.x", "controlnet"),
        ("decoder.conv_in.weight", "vae"),
        ("what.is.this", "unknown"),
    ],
)
def test_single_files_that_are_parts(tmp_path: Path, tensor: str, role: str) -> None:
    safetensors(tmp_path / "x.safetensors", {tensor: [1]})
    assert (only(tmp_path).kind.type, only(tmp_path).kind.role) == (None, role)


def test_a_suggestion_is_a_configuration(tmp_path: Path) -> None:
    put(weights(tmp_path / "my model!"), config__json=LM)
    found = only(tmp_path)
    for accelerated, engine in ((True, "vllm"), (False, "text")):
        said = yaml.safe_load(suggestion(found, accelerated=accelerated, taken={"my-model"}) or "")
        model = Settings.model_validate(said).models["my-model-2"]
        assert (model.engine, model.source, model.context) == (engine, "models/my model!", 4096)


def test_what_is_configured_is_not_offered(tmp_path: Path) -> None:
    put(weights(tmp_path / "a"), config__json=LM)
    put(weights(tmp_path / "b"), config__json=LM)
    safetensors(tmp_path / "c" / "c.safetensors", {"double_blocks.0": [1]})
    left = unconfigured(scan(tmp_path), [tmp_path / "a", tmp_path / "c", tmp_path / "nowhere"])
    assert [found.id for found in left] == ["b"]


def test_configurations_without_weights_and_hidden_folders_are_no_models(tmp_path: Path) -> None:
    put(tmp_path / "empty", config__json=LM)
    put(weights(tmp_path / ".pull" / "x"), config__json=LM)
    put(weights(tmp_path / "m" / "unet"), config__json={"_class_name": "UNet"})
    put(tmp_path / "m", model_index__json={"_class_name": "StableDiffusionPipeline"})
    assert [found.id for found in scan(tmp_path)] == ["m"]


def test_nothing_there(tmp_path: Path) -> None:
    assert scan(tmp_path / "absent") == []


HOSTILE = {
    "huge length": struct.pack("<Q", 2**63) + b"{}",
    "length beyond the end": struct.pack("<Q", 10**6) + b"{}",
    "deep": struct.pack("<Q", 200_000) + b'{"a":' * 40_000,
    "no object": struct.pack("<Q", 2) + b"[]",
    "short": b"\x01",
    "empty": b"",
    "negative": struct.pack("<Q", 60) + b'{"a":{"dtype":"F16","shape":[-5],"data_offsets":[0,0]}}     ',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(HOSTILE[name])
    (tmp_path / "y.gguf").write_bytes(b"GGUF" + HOSTILE[name] + b"\xff" * 40)
    put(tmp_path / "m", config__json=LM)
    (tmp_path / "m" / "model.safetensors").write_bytes(HOSTILE[name] + b"!")
    found = {each.id: each for each in scan(tmp_path)}
    assert "x.safetensors" not in found
    assert found["m"].kind.parameters is None


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        "{",
        '{"architectures": {"a": 1}}',
        '{"architectures": [7], "_class_name": 3}',
        '{"architectures": ["\\u001b[31mForCausalLM"]}',
        '{"architectures": []}',
        "\0" * 100,
    ],
    ids=("deep", "cut", "object", "numbers", "escape", "none", "zeros"),
)
def test_hostile_configurations(tmp_path: Path, content: str) -> None:
    for name in ("config.json", "model_index.json", "modules.json", "adapter_config.json", "config.yaml"):
        folder = weights(tmp_path / f"with {name}")
        (folder / name).write_text(content)
    found = scan(tmp_path)
    assert found
    assert not any("\\u001b" in json.dumps(each.facts()) for each in found)


def test_pipes_loops_and_strange_names(tmp_path: Path) -> None:
    put(weights(tmp_path / "m"), config__json=LM)
    os.mkfifo(tmp_path / "x.safetensors")
    os.mkfifo(tmp_path / "m" / "pipe.safetensors")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.safetensors").symlink_to("/nowhere")
    put(weights(tmp_path / "red\x1b[31m"), config__json=LM)
    put(weights(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))), config__json=LM)
    assert [found.id for found in scan(tmp_path)] == ["m"]


def test_a_model_on_another_disk_is_found_through_its_link(tmp_path: Path) -> None:
    put(weights(tmp_path / "disk" / "far"), config__json=LM)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "near").symlink_to(tmp_path / "disk" / "far")
    assert [found.id for found in scan(tmp_path / "models")] == ["near"]
