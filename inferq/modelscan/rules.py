"""What a folder or a single file is, told by the names and the beginnings of its files.

The first rule that fits counts: what is more special stands before what is more general. Nothing is loaded.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from inferq.modelscan import files
from inferq.modelscan.files import Tensors
from inferq.modelscan.found import Kind

MOST_SHARDS = 64
_ELSEWHERE = (
    "no engine here runs it; an OpenAI-compatible server of its own does, through the engine 'remote'"
)
_VIDEO = ("Video", "CogVideo", "Wan", "LTX", "Mochi", "AnimateDiff", "Allegro", "Latte", "SkyReels")
_SOUND = ("Audio", "Music", "Speech")
_TALKS = ("ForConditionalGeneration", "ForCausalLM")
_ENCODERS = frozenset(
    (
        "bert",
        "roberta",
        "xlm-roberta",
        "mpnet",
        "distilbert",
        "nomic_bert",
        "modernbert",
        "new",
        "deberta-v2",
        "electra",
    )
)
_ROLES = {"ControlNet": "controlnet", "Autoencoder": "vae"}
_FUNASR = {
    "vad": ("vad",),
    "punctuation": ("ctransformer", "cttransformer", "punc"),
    "speaker": ("campplus", "eres2net"),
    "alignment": ("monotonicaligner",),
}

Names = frozenset[str]
Rule = Callable[[Path, Names], Kind | None]


def folder_kind(folder: Path, names: Names) -> Kind | None:
    """What a folder is as a whole; None when it is only a place where models lie."""
    for rule in _RULES:
        kind = rule(folder, names)
        if kind is not None:
            return kind
    return None


def file_kind(path: Path, names: Names) -> Kind | None:
    """What a single file is; `names` are its neighbours."""
    match path.suffix.lower():
        case ".safetensors":
            tensors = files.safetensors(path)
            return _single(tensors) if tensors else None
        case ".ckpt":
            return Kind(
                type="image", engines=("image",), note="a pickle: load it only if you trust its origin"
            )
        case ".gguf":
            return _gguf(path)
        case ".onnx" if f"{path.name}.json" in names:
            config = files.read_json(path.with_name(f"{path.name}.json")) or {}
            if "phoneme_id_map" in config or "espeak" in config:
                return Kind(type="tts", family="piper", note=_ELSEWHERE)
    return None


def _diffusers(folder: Path, names: Names) -> Kind | None:
    if "model_index.json" not in names:
        return None
    name = files.word((files.read_json(folder / "model_index.json") or {}).get("_class_name"))
    if name is None:
        return None
    if any(part in name for part in _SOUND):
        return Kind(family=name, role="sound", note=_ELSEWHERE)
    kind = "video" if any(part in name for part in _VIDEO) else "image"
    return Kind(type=kind, engines=(kind,), family=name, **_weights(folder, "*/*.safetensors"))


def _adapter(folder: Path, names: Names) -> Kind | None:
    if "adapter_config.json" not in names:
        return None
    config = files.read_json(folder / "adapter_config.json")
    if config is None:
        return None
    base = files.word(config.get("base_model_name_or_path"))
    return Kind(role="lora", note=f"for {base}" if base else None)


def _funasr(folder: Path, names: Names) -> Kind | None:
    if "config.yaml" not in names or not names & {"model.pt", "model.onnx", "model_quant.onnx"}:
        return None
    family = files.funasr_class(folder / "config.yaml")
    if family is None:
        return None
    for role, parts in _FUNASR.items():
        if any(part in family.lower() for part in parts):
            return Kind(family=family, role=role, note="an option of a model for speech recognition")
    return Kind(type="asr", engines=("asr",), family=family)


def _sentences(folder: Path, names: Names) -> Kind | None:
    """sentence-transformers: embeddings, and cross-encoders, which newer versions save in the same form."""
    if "modules.json" not in names and "config_sentence_transformers.json" not in names:
        return None
    said = files.read_json(folder / "config_sentence_transformers.json") or {}
    config = files.read_json(folder / "config.json") or {}
    facts = _text_facts(config) | _weights(folder, "*.safetensors")
    if said.get("model_type") == "CrossEncoder" or _architecture(config).endswith(
        "ForSequenceClassification"
    ):
        return Kind(type="rerank", engines=("rerank",), **facts)
    return Kind(type="embedding", engines=("embed",), **facts)


def _kokoro(folder: Path, names: Names) -> Kind | None:
    if "config.json" not in names or "voices" not in names:
        return None
    config = files.read_json(folder / "config.json") or {}
    return Kind(type="tts", engines=("speech",), family="kokoro") if "istftnet" in config else None


def _parts(folder: Path, names: Names) -> Kind | None:
    """A part of diffusers: it has a class and no architectures."""
    name = (
        (files.read_json(folder / "config.json") or {}).get("_class_name") if "config.json" in names else None
    )
    if not isinstance(name, str):
        return None
    role = next((role for part, role in _ROLES.items() if part in name), "part")
    return Kind(family=name, role=role, **_weights(folder, "*.safetensors"))


def _transformers(folder: Path, names: Names) -> Kind | None:
    config = files.read_json(folder / "config.json") if "config.json" in names else None
    if config is None:
        return None
    name = _architecture(config)
    sees = "vision_config" in config and name.endswith(_TALKS)
    if "Whisper" in name:
        kind: dict[str, Any] = {"type": "asr", "engines": ("asr",)}
    elif name.endswith(("ForSpeechSeq2Seq", "ForCTC")):
        kind = {"type": "asr", "note": _ELSEWHERE}
    elif name.endswith("ForSequenceClassification"):
        kind = {"type": "rerank", "engines": ("rerank",)}
    elif sees or name.endswith("ForImageTextToText"):
        kind = {"type": "chat", "engines": ("vllm", "vision"), "note": "sees pictures"}
    elif name.endswith(("ForCausalLM", "LMHeadModel")):
        kind = {"type": _talk(folder, names), "engines": ("vllm", "text")}
    elif config.get("model_type") in _ENCODERS and name.endswith(("Model", "ForMaskedLM")):
        kind = {"type": "embedding", "engines": ("embed",)}
    else:
        return None
    return Kind(**kind, **_text_facts(config), **_weights(folder, "*.safetensors"))


_RULES: tuple[Rule, ...] = (_diffusers, _adapter, _funasr, _sentences, _kokoro, _parts, _transformers)


def _talk(folder: Path, names: Names) -> str:
    """Chat where there is a template for it."""
    if names & {"chat_template.jinja", "chat_template.json"}:
        return "chat"
    config = files.read_json(folder / "tokenizer_config.json") or {}
    return "chat" if config.get("chat_template") else "completion"


def _architecture(config: Mapping[str, Any]) -> str:
    found = config.get("architectures")
    return (files.word(found[0]) if isinstance(found, list) and found else None) or ""


def _text_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    inner = config.get("text_config")
    inner = inner if isinstance(inner, dict) else {}
    context = config.get("max_position_embeddings", inner.get("max_position_embeddings"))
    dtype = config.get("dtype") or config.get("torch_dtype") or inner.get("dtype")
    facts: dict[str, Any] = {"family": _architecture(config) or None}
    facts["context"] = context if type(context) is int and 0 < context < 2**32 else None
    facts["dtype"] = files.word(dtype)
    quantised = config.get("quantization_config")
    if isinstance(quantised, dict):
        method, bits = files.word(quantised.get("quant_method")), quantised.get("bits")
        if not bits and method == "bitsandbytes":
            bits = 4 if quantised.get("load_in_4bit") else 8
        facts["quantisation"] = f"{method}-{bits}bit" if type(bits) is int else method
    return facts


def _weights(folder: Path, pattern: str) -> dict[str, Any]:
    """How many parameters the weights have, where every file says so; packed numbers cannot be counted."""
    shards = list(islice(folder.glob(pattern), MOST_SHARDS + 1))
    if not shards or len(shards) > MOST_SHARDS:
        return {}
    headers = [files.safetensors(shard) for shard in shards]
    known = [header for header in headers if header]
    if len(known) < len(headers) or any(header.any(".qweight", ".SCB", ".absmax") for header in known):
        return {}
    return {"parameters": sum(header.parameters for header in known)}


def _single(tensors: Tensors) -> Kind:
    """A single file of weights, by the names that each family gives to its tensors."""
    facts: dict[str, Any] = {"parameters": tensors.parameters, "dtype": tensors.dtype}
    if tensors.any("lora_", ".lora.", "hada_w1"):
        return Kind(role="lora", **facts)
    if tensors.any("control_model.", "controlnet_"):
        return Kind(role="controlnet", **facts)
    for family, parts in _FAMILIES.items():
        if tensors.any(*parts):
            return Kind(type="image", engines=("image",), family=family, **facts)
    if tensors.any("decoder.conv_in.", "first_stage_model."):
        return Kind(role="vae", **facts)
    if tensors.any("emb_params", "string_to_param"):
        return Kind(role="textual inversion", **facts)
    return Kind(role="unknown", **facts)


_FAMILIES = {
    "Flux": ("double_blocks.",),
    "SD3": ("joint_blocks.",),
    "SDXL": ("conditioner.embedders.1.",),
    "SDXL refiner": ("conditioner.embedders.0.model.",),
    "SD2": ("cond_stage_model.model.",),
    "SD1.5": ("cond_stage_model.transformer.",),
}


def _gguf(path: Path) -> Kind | None:
    found = files.gguf(path)
    if found is None:
        return None
    embeds = "bert" in str(found["architecture"])
    return Kind(
        type="embedding" if embeds else "chat",
        family=found["architecture"],
        quantisation=found["quantisation"],
        context=found["context"],
        note=_ELSEWHERE,
    )
