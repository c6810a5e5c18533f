"""What one request to a model may ask for at most; the gateway refuses more before it waits, engines do again."""

from pydantic import Field

from inferq import errors
from inferq.config.section import Section
from inferq.config.units import Duration


class Limits(Section):
    """Bounds of one request; unset: the engine's own. Each reaches our engines as the option `max_...`."""

    pixels: int | None = Field(default=None, ge=64)
    """Pixels of a picture or of a frame."""
    steps: int | None = Field(default=None, ge=1)
    """Denoising steps."""
    images: int | None = Field(default=None, ge=1)
    """Pictures of one request."""
    duration: Duration | None = None
    """Length of a video."""
    fps: int | None = Field(default=None, ge=1)
    """Frames per second of a video."""
    frames: int | None = Field(default=None, ge=1)
    """Frames that a model makes at once."""
    seconds: Duration | None = None
    """Length of a sound that is listened to."""
    characters: int | None = Field(default=None, ge=1)
    """Length of a text that is said."""
    documents: int | None = Field(default=None, ge=1)
    """Documents of one rerank request."""

    def check(self, name: str, value: float | None, param: str, said: str) -> None:
        """Raise InvalidRequest when `value` is over the bound `name`; `said` tells it, with `{value}` in it."""
        bound = getattr(self, name)
        if bound is not None and value is not None and value > bound:
            raise errors.InvalidRequest(
                f"{said.format(value=value)}, and this model's limit is {bound:g} ({name}).",
                param=param,
            )

    def given(self) -> dict[str, float]:
        """The bounds that are set, by name."""
        return {name: value for name, value in self.model_dump().items() if value is not None}
