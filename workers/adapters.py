"""The built-in engines as a replica sees them: only how each is started. Nothing here imports an engine library."""

import json
from dataclasses import dataclass

from inferq.engine import Command, Launch, MediaForm

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
_QUIET_VLLM = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
TEXT_ENDPOINTS = frozenset({"chat/completions", "completions"})
REMOTE_ENDPOINTS = frozenset(
    {
        *("chat/completions", "completions", "responses", "messages", "embeddings", "rerank"),
        *("images/generations", "images/edits"),
        *("audio/speech", "audio/transcriptions", "audio/translations"),
    }
)
# Which of them a vLLM really serves depends on its model. Its transcriptions take forms only, so they are not here.
VLLM_ENDPOINTS = TEXT_ENDPOINTS | {"responses", "messages", "embeddings", "rerank"}
IMAGE_ENDPOINTS = frozenset({"images/generations", "images/edits"})


def _hygiene(source: str) -> dict[str, str]:
    """A model that lies on disk must not cause a look at a hub."""
    return dict(_OFFLINE) if source.startswith("/") else {}


@dataclass(frozen=True, slots=True)
class OwnServer:
    """One of our servers on `workers.engines.base`."""

    module: str
    endpoints: frozenset[str]
    health: str = "/health"
    media: MediaForm = MediaForm.PATH

    def command(self, launch: Launch) -> Command:
        argv = (
            *(str(launch.python), "-m", self.module, "--model", launch.source, "--served-name", launch.model),
            *(
                "--uds",
                str(launch.socket),
                "--slots",
                str(launch.slots),
                "--device",
                launch.device.partition(":")[0],
            ),
            *("--media", str(launch.media)),
            *("--options", json.dumps(dict(launch.options))),
            *launch.args,
        )
        # What a killed engine leaves behind goes with the folder of its socket.
        return Command(argv, _hygiene(launch.source) | {"TMPDIR": str(launch.socket.parent)})


NO_HOST = "/"
"""No URL has a host of this name. An empty list would not do: vLLM then fetches from every host."""


@dataclass(frozen=True, slots=True)
class Vllm:
    """vLLM's own server. Options become its flags: ``max_model_len: 4096`` is ``--max-model-len 4096``.

    ``enable_prefix_caching: false`` is ``--no-enable-prefix-caching``: what is on by default must be turned off.
    It fetches no URLs of requests, which the gateway has done, unless ``allowed_media_domains`` names hosts; null there
    leaves the flag out, which allows all of them and is for a vLLM that does not know the flag.
    """

    endpoints: frozenset[str] = VLLM_ENDPOINTS
    health: str = "/health"
    media: MediaForm = MediaForm.DATA

    def command(self, launch: Launch) -> Command:
        on_cpu = launch.device.startswith("cpu")
        options = {"enforce_eager": True, "dtype": "float32"} if on_cpu else {}
        options |= {"max_num_seqs": launch.slots, "allowed_media_domains": NO_HOST, **launch.options}
        argv = (
            *(str(launch.python), "-m", "vllm.entrypoints.openai.api_server", "--model", launch.source),
            *("--served-model-name", launch.model, "--uds", str(launch.socket)),
            *(word for name, value in options.items() for word in _flag(name, value)),
            *launch.args,
        )
        env = _QUIET_VLLM | _hygiene(launch.source) | ({"VLLM_CPU_KVCACHE_SPACE": "1"} if on_cpu else {})
        # It leaves sockets and folders behind when it is killed; those of the socket's folder go with that.
        env |= {"TMPDIR": str(launch.socket.parent)}
        return Command(argv, env)


def _flag(name: str, value: object) -> tuple[str, ...]:
    flag = name.replace("_", "-")
    if value is None:
        return ()
    if flag == "allowed-media-domains" and isinstance(value, list):
        return (f"--{flag}", *(map(str, value) if value else (NO_HOST,)))
    if isinstance(value, bool):
        return (f"--{flag}" if value else f"--no-{flag}",)
    return (f"--{flag}", value if isinstance(value, str) else json.dumps(value))


TEXT = OwnServer("workers.engines.text", TEXT_ENDPOINTS)
EMBED = OwnServer("workers.engines.embed", frozenset({"embeddings"}))
NOOP = OwnServer("workers.engines.noop", TEXT_ENDPOINTS | {"embeddings"})
RERANK = OwnServer("workers.engines.rerank", frozenset({"rerank"}))
VISION = OwnServer("workers.engines.vision", frozenset({"chat/completions"}))
IMAGE = OwnServer("workers.engines.image", IMAGE_ENDPOINTS)
VIDEO = OwnServer("workers.engines.video", frozenset({"video/generations"}))
ASR = OwnServer("workers.engines.asr", frozenset({"audio/transcriptions", "audio/translations"}))
SPEECH = OwnServer("workers.engines.speech", frozenset({"audio/speech"}))
REMOTE = OwnServer("workers.engines.remote", REMOTE_ENDPOINTS)
COMFYUI = OwnServer("workers.engines.comfyui", IMAGE_ENDPOINTS)
PULL = OwnServer("workers.engines.pull", frozenset({"models/pull"}))
VLLM = Vllm()
