"""Loads what turns messages and pictures into a model's inputs, with or without torchvision.

transformers reads videos with torchvision only, and a model that could also see videos fails to load without it. This
engine reads pictures, for which most families have a reader on PIL and numpy; so the part for videos is left out.
Must not know requests.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, AutoImageProcessor, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING


def load_processor(folder: str, trusted: bool) -> Any:
    """The processor of a model folder. Raises ImportError where its pictures need torchvision too."""
    where = {"local_files_only": True, "trust_remote_code": trusted}
    try:
        return AutoProcessor.from_pretrained(folder, **where)
    except ImportError as error:
        if "VideoProcessor" not in str(error):
            raise
    config = AutoConfig.from_pretrained(folder, **where)
    return without_videos(PROCESSOR_MAPPING[type(config)]).from_pretrained(folder, **where)


def without_videos(kind: Any) -> Any:
    """The processor class of a family, with no reader of videos inside."""

    class StillProcessor(kind):
        @classmethod
        def _get_arguments_from_pretrained(cls, source: Any, *rest: Any, **where: Any) -> list[Any]:
            where.pop("subfolder", None)
            where.pop("processor_dict", None)
            loaders = {"image_processor": AutoImageProcessor, "tokenizer": AutoTokenizer}
            return [
                loaders[name].from_pretrained(source, **where) if name in loaders else None
                for name in cls.get_attributes()
            ]

        def check_argument_for_proper_class(self, name: str, value: Any) -> Any:
            return None if value is None else super().check_argument_for_proper_class(name, value)

    # Some of a processor's behaviour hangs on the name of its class.
    StillProcessor.__name__ = kind.__name__
    return StillProcessor
