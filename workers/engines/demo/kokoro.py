"""Makes `demo-kokoro`: a Kokoro network of the published shape with random weights. It babbles, in 82 M parameters.

Its lengths mean something: every phoneme lasts three frames of 25 ms. Needs the package `kokoro` (see
`workers.engines.voices.kokoro`), and cannot be made small: most sizes are fixed in the network.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from workers.engines.demo.shelf import Recipe
from workers.engines.voices.kokoro import import_network

SIGNS = ';:,.!?—…"()“” ' + "AIOQWYTSabcdefhijklmnopqstuvwxyzɑɒæɐɔɕəɚɛɜɡɥɨɪɯɲɳŋɹɾʁʃʂʊʌʒʔʣʤʦʧʨðθβχᵊᵻˈˌːʰʲ↓→↗↘"
FRAMES_A_SIGN = 3
VOICES = ("af_heart", "am_echo", "bm_fable")
CONFIG: dict[str, Any] = {
    "dim_in": 64,
    "dropout": 0.2,
    "hidden_dim": 512,
    "max_conv_dim": 512,
    "max_dur": 50,
    "multispeaker": True,
    "n_layer": 3,
    "n_mels": 80,
    "n_token": 178,
    "style_dim": 128,
    "text_encoder_kernel_size": 5,
    "istftnet": {
        "upsample_kernel_sizes": [20, 12],
        "upsample_rates": [10, 6],
        "gen_istft_hop_size": 5,
        "gen_istft_n_fft": 20,
        "resblock_dilation_sizes": [[1, 3, 5]] * 3,
        "resblock_kernel_sizes": [3, 7, 11],
        "upsample_initial_channel": 512,
    },
    "plbert": {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 2048,
        "max_position_embeddings": 512,
        "num_hidden_layers": 12,
        "dropout": 0.1,
    },
    "vocab": {sign: number for number, sign in enumerate(SIGNS, start=1)},
}


def make(folder: Path) -> dict[str, Any]:
    torch.manual_seed(5)
    nothing = folder / "nothing.pth"
    torch.save({}, nothing)
    network = import_network().KModel(repo_id="local", config=CONFIG, model=str(nothing)).eval()
    nothing.unlink()
    last = network.predictor.duration_proj.linear_layer
    with torch.no_grad():
        # A length is the sum of 50 sigmoids, in frames.
        last.weight.zero_()
        last.bias.fill_(float(torch.logit(torch.tensor(FRAMES_A_SIGN / CONFIG["max_dur"]))))
    states = {
        name: {
            key: value.half() if value.is_floating_point() else value
            for key, value in part.state_dict().items()
        }
        for name, part in network.named_children()
    }
    torch.save(states, folder / "kokoro-demo.pth")
    (folder / "voices").mkdir()
    for name in VOICES:
        torch.save(torch.randn(510, 1, 256) * 0.15, folder / "voices" / f"{name}.pt")
    (folder / "config.json").write_text(json.dumps(CONFIG, ensure_ascii=False), "utf-8")
    return {"parameters": sum(each.numel() for each in network.parameters())}


RECIPE = Recipe("demo-kokoro", [CONFIG, VOICES, FRAMES_A_SIGN], make)
