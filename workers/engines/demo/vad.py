"""Makes `demo-vad`: an FSMN voice activity detector of the real shape whose net always says speech.

What decides is then the energy threshold of the same model, which comes first: frames below it are silence. So it
is a checkpoint that FunASR reads, and it cuts clean recordings where they are quiet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from workers.engines.demo.shelf import Recipe

FRONTEND = {"fs": 16000, "window": "hamming", "n_mels": 80, "frame_length": 25, "frame_shift": 10}
FRONTEND |= {"dither": 0.0, "lfr_m": 5, "lfr_n": 1}
ENCODER = {
    "input_dim": 400,
    "input_affine_dim": 32,
    "fsmn_layers": 2,
    "linear_dim": 32,
    "proj_dim": 16,
    "lorder": 20,
    "rorder": 0,
    "lstride": 1,
    "rstride": 0,
    "output_affine_dim": 32,
    "output_dim": 8,
}
RULES = {
    "sample_rate": 16000,
    "detect_mode": 1,
    "snr_mode": 0,
    "max_end_silence_time": 800,
    "max_start_silence_time": 3000,
    "do_start_point_detection": True,
    "do_end_point_detection": True,
    "window_size_ms": 200,
    "sil_to_speech_time_thres": 150,
    "speech_to_sil_time_thres": 150,
    "do_extend": 1,
    "lookback_time_start_point": 200,
    "lookahead_time_end_point": 100,
    "max_single_segment_time": 60000,
    "decibel_thres": -25.0,
    "speech_noise_thres": 0.6,
    "silence_pdf_num": 1,
    "sil_pdf_ids": [0],
}
SILENCE_BIAS = -8.0


def make(folder: Path) -> dict[str, Any]:
    from funasr.register import tables  # takes seconds

    config = {
        "model": "FsmnVADStreaming",
        "model_conf": RULES,
        "encoder": "FSMN",
        "encoder_conf": ENCODER,
        "frontend": "WavFrontendOnline",
        "frontend_conf": FRONTEND,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), "utf-8")
    torch.manual_seed(1)
    model = tables.model_classes["FsmnVADStreaming"](encoder="FSMN", encoder_conf=ENCODER, **RULES)
    with torch.no_grad():
        last = model.encoder.out_linear2.linear
        last.weight.zero_()
        last.bias.zero_()
        last.bias[0] = SILENCE_BIAS
    torch.save(model.eval().state_dict(), folder / "model.pt")
    return {"parameters": sum(weight.numel() for weight in model.parameters())}


RECIPE = Recipe("demo-vad", [FRONTEND, ENCODER, RULES, SILENCE_BIAS], make)
