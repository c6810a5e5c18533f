"""Which backend an engine gets: by the option `backend`, else by the other options, else by the model's source.

The modules of the backends are imported when one is chosen: each brings its own libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workers.engines.launch import Launch, Options
from workers.engines.voices.backend import Backend, LocalBackend

NO_WEIGHTS = ("espeak", "none")


def choose_backend(launch: Launch, options: Options) -> Callable[[], Backend]:
    """Reads the backend's options, and returns what loads it. Raises ValueError for wrong options."""
    name = options.take("backend", "") or detected(launch, options)
    match name:
        case "espeak":
            return espeak
        case "kokoro":
            return kokoro(launch, options)
        case "upstream":
            return upstream(launch, options)
        case "maskgct":
            return maskgct(launch, options)
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


def kokoro(launch: Launch, options: Options) -> Callable[[], Backend]:
    threads, disable_complex = options.take("threads", 0), options.take("disable_complex", False)

    def load() -> Backend:
        from workers.engines.voices.kokoro import KokoroOptions, KokoroVoice

        settings = KokoroOptions(threads, disable_complex)
        return LocalBackend(KokoroVoice(Path(launch.model), launch.device, settings))

    return load


def upstream(launch: Launch, options: Options) -> Callable[[], Backend]:
    from workers.engines.voices.upstream import UpstreamVoice, read_options

    settings = read_options(options, launch.served_name)
    return lambda: UpstreamVoice(settings, launch.slots)


def maskgct(launch: Launch, options: Options) -> Callable[[], Backend]:
    checkout = Path(options.take("amphion", ""))

    def load() -> Backend:
        from workers.engines.voices.maskgct import MaskGctVoice

        return LocalBackend(MaskGctVoice(checkout, Path(launch.model).resolve(), launch.device))

    return load
