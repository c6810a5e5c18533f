"""SenseVoice-small as FunASR exports it to ONNX, whole or quantised: faster than torch on a processor.

The folder holds model.onnx or model_quant.onnx with the configuration, the statistics (am.mvn) and the tokenizer that
FunASR puts beside them. The graph takes features and numbers for language and style, and gives scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped,import-not-found,unused-ignore]
import torch
import yaml
from torch.nn.utils.rnn import pad_sequence

from workers.engines.recognition.folders import use_fast_banks
from workers.engines.recognition.funasr_features import features
from workers.engines.recognition.hearing import Abilities, Features, Heard, Mode, Recogniser
from workers.engines.recognition.sense_text import TAGS, SenseText

WHOLE, QUANTISED = "model.onnx", "model_quant.onnx"
INPUTS = ("speech", "speech_lengths", "language", "textnorm")
# The numbers of FunASR's class, which the export does not keep.
LANGUAGES = {"auto": 0, "zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12}
WITH_ITN, WITHOUT_ITN = 14, 15
BLANK = 0
DEVICES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class SenseVoiceOnnx(Recogniser):
    """One exported SenseVoiceSmall. Raises ValueError when the folder or the graph is something else."""

    longest_s = 30.0

    def __init__(self, graph: Path, device: str, threads: int) -> None:
        self.frontend = load_frontend(graph.parent)
        self.session = open_session(graph, device, threads)
        self.text = SenseText(load_pieces(graph.parent), self.frontend, BLANK)
        languages = tuple(name for name in LANGUAGES if name != "auto")
        self.abilities = Abilities(languages, detects_language=True, itn=True, tags=True, words=True)

    def writes_marks(self, mode: Mode) -> bool:
        return mode.itn

    def features(self, samples: Any) -> Features:
        return features(self.frontend, samples)

    def recognise(self, batch: Sequence[Features], mode: Mode) -> Sequence[Heard]:
        count = len(batch)
        lengths = np.array([len(each) for each in batch], np.int32)
        style = WITH_ITN if mode.itn else WITHOUT_ITN
        given = {
            "speech": pad_sequence(list(batch), batch_first=True).numpy(),
            "speech_lengths": lengths,
            "language": np.full(count, LANGUAGES[mode.language], np.int32),
            "textnorm": np.full(count, style, np.int32),
        }
        scores = torch.from_numpy(self.session.run(["ctc_logits"], given)[0])
        return [self.text.read(scores[row, : length + TAGS]) for row, length in enumerate(lengths.tolist())]


def find_graph(place: Path, quantised: bool) -> Path:
    """The file to run. Asked for or not, the quantised one is taken where it is the only one."""
    names = (QUANTISED,) if quantised else (WHOLE, QUANTISED)
    found = next((place / name for name in names if (place / name).is_file()), None)
    if found is None:
        raise ValueError(f"{place} holds no {' and no '.join(names)}")
    return found


def open_session(graph: Path, device: str, threads: int) -> Any:
    provider = DEVICES.get(device.partition(":")[0])
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"onnxruntime has no provider for {device} here; an ONNX model needs a processor")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # A spinning wait takes the processor from the detector, which runs beside.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(graph), options, providers=[provider])
    names = tuple(each.name for each in session.get_inputs())
    if set(names) != set(INPUTS):
        raise ValueError(f"{graph} is an ONNX model with the inputs {', '.join(names)}, not a SenseVoice")
    return session


def load_frontend(place: Path) -> Any:
    from funasr.frontends.wav_frontend import WavFrontend

    use_fast_banks()
    config, statistics = place / "config.yaml", place / "am.mvn"
    if not config.is_file() or not statistics.is_file():
        raise ValueError(f"{place} holds an ONNX model without its config.yaml and am.mvn")
    settings = yaml.safe_load(config.read_text("utf-8"))["frontend_conf"]
    return WavFrontend(**(settings | {"cmvn_file": str(statistics), "dither": 0.0}))


def load_pieces(place: Path) -> Any:
    from sentencepiece import SentencePieceProcessor  # type: ignore[import-not-found,unused-ignore]

    found = sorted(place.glob("*bpe.model"))
    if len(found) != 1:
        raise ValueError(f"{place} must hold one sentencepiece model (*bpe.model)")
    return SentencePieceProcessor(model_file=str(found[0]))
