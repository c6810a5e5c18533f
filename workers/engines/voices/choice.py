"""Which backend an engine gets: by the option `backend`, else by the other options, else by the model's source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workers.engines.launch import Launch, Options
from workers.engines.voices.backend import Backend, LocalBackend

NO_WEIGHTS = ("espeak", "none")


def choose_backend(launch: Launch, options: Options) -> Callable[[], Backend]:
    """Reads the backend's options, and returns what loads it. Raises ValueError for wrong options.

    The backends' modules are imported here and not above: each brings its own libraries.
    """
    name = options.take("backend", "") or detected(launch, options)
    match name:
        case "espeak":
            return espeak
        case "upstream":
            from workers.engines.voices import upstream

            settings = upstream.read_options(options, launch.served_name)
            return lambda: upstream.UpstreamVoice(settings, launch.slots)
        case _:
            raise ValueError(
                f"option 'backend' must be espeak, kokoro, upstream or maskgct; {name!r} is none of them"
            )


def detected(launch: Launch, options: Options) -> str:
    """1. a server or a checkout that the options name; 2. no weights; 3. a folder in a known form."""
    if options.given("upstream"):
        return "upstream"
    if options.given("amphion"):
        return "maskgct"
    if launch.model in NO_WEIGHTS:
        return "espeak"
    if Path(launch.model, "config.json").is_file() and Path(launch.model, "voices").is_dir():
        return "kokoro"
    raise ValueError(
        f"no voice is found in {launch.model}: name 'espeak', or a Kokoro folder (config.json, *.pth, voices/), or set "
        "the option 'backend'"
    )


def espeak() -> Backend:
    from workers.engines.voices.robot import RobotVoice

    return LocalBackend(RobotVoice())
