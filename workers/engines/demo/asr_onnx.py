"""Exports `demo-asr` to ONNX as FunASR does it, and quantises it: `demo-asr-onnx`.

The folder is what FunASR's export leaves behind, without the weights for torch: model.onnx, model_quant.onnx, and
the configuration, statistics and tokenizer beside them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from workers.engines.demo import asr
from workers.engines.demo.shelf import Recipe, build

BESIDE = ("config.yaml", "am.mvn", "bpe.model", "phrases.json")
OPSET = 17


def export(source: Path, folder: Path) -> None:
    """FunASR's inputs, outputs and axes, by torch's exporter that needs no other package."""
    from workers.engines.recognition.folders import load_folder

    model = load_folder(str(source), "cpu", 1).model.export(device="cpu").eval()
    torch.onnx.export(
        model,
        model.export_dummy_inputs(),
        str(folder / "model.onnx"),
        opset_version=OPSET,
        input_names=model.export_input_names(),
        output_names=model.export_output_names(),
        dynamic_axes=model.export_dynamic_axes(),
        dynamo=False,
    )


def quantise(folder: Path) -> None:
    """As FunASR's export does: the matrices in 8 bits, one scale a channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # type: ignore[import-untyped,import-not-found,unused-ignore]

    quantize_dynamic(
        folder / "model.onnx",
        folder / "model_quant.onnx",
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=False,
        weight_type=QuantType.QUInt8,
    )


def make(folder: Path) -> dict[str, Any]:
    source = build(asr.RECIPE, folder.parent)
    export(source, folder)
    quantise(folder)
    for name in BESIDE:
        shutil.copy(source / name, folder / name)
    return {"bytes": {path.name: path.stat().st_size for path in folder.glob("*.onnx")}}


RECIPE = Recipe("demo-asr-onnx", [asr.RECIPE.ingredients, OPSET, BESIDE], make)
