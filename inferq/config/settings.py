"""`Settings`: the whole of `scheduler_config.yaml`, and what it says about devices, engines and models."""

import hashlib
import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from inferq.config.fim import FimTemplate
from inferq.config.hub import Hub
from inferq.config.limits import Limits
from inferq.config.section import Section
from inferq.config.sections import (
    Api,
    Cache,
    Deployment,
    Directories,
    HookRules,
    IntelligentRouting,
    Media,
    Monitoring,
    Processing,
    Queue,
    Security,
    Storage,
    Webhooks,
)
from inferq.config.tenants import Tenant
from inferq.config.units import Duration, Size

ModelType = Literal["chat", "completion", "embedding", "rerank", "image", "video", "asr", "tts", "pull"]

PULL_MODEL = "inferq-pull"
"""The model of inferq's own whose jobs bring other models here."""


REQUEST_DEFAULTS: dict[str, dict[str, Any]] = {
    "chat/completions": {"temperature": 0.7, "top_p": 1.0, "max_tokens": 4096},
    "completions": {"temperature": 0.01, "top_p": 1.0, "max_tokens": 128},
}


class DeviceSettings(Section):
    """One device that detection does not find by itself, or a correction of one that it does."""

    memory: Size | None = None
    """Memory that may be used; unset: what the device reports."""
    env: dict[str, str] = {}
    """Environment of every engine on this device (for instance which card is visible)."""


class EngineSettings(Section):
    """How an engine is started."""

    kind: str | None = None
    """The engine that this is, when its name here is another one: a second environment or device of the same engine."""
    python: Path | None = None
    """Python of the environment that holds the engine's library; relative to the project's folder."""
    env: dict[str, str] = {}
    """Environment variables."""
    args: list[str] = []
    """Extra command-line arguments for engines that are servers of their own, such as vLLM."""
    nice: Annotated[int, Field(ge=0, le=19)] | None = None
    """Steps below normal priority at which the engine runs; 10 on a `cpu` device and 0 on others when not given.

    Engines that spin on the cores which also serve requests would otherwise delay every answer by milliseconds.
    """


class ModelSettings(Section):
    """One model: an engine, a source, limits, slots and replicas."""

    engine: str
    """Name of an engine: one of `engines`, or one that an installed package adds."""
    source: str
    """Folder (relative to INFERQ_HOME), single file, or hub id of the model."""
    type: ModelType = "chat"
    """What the model does; decides which endpoints take it."""
    device: str = "auto"
    """auto, or a device such as cuda:0 or cpu:0."""
    replicas: int = Field(default=1, ge=1)
    """Resident copies."""
    slots: int = Field(default=8, ge=1, le=1024)
    """Jobs that one replica runs at once."""
    max_running: int | None = Field(default=None, ge=1)
    """Jobs that all replicas together run at once; unset: all their slots."""
    max_lane_running: dict[Literal["high", "medium", "low"], Annotated[int, Field(ge=1)]] = {}
    """The same of a lane: `low: 2` keeps the other slots free for what is urgent."""
    warm: bool = False
    """Loaded at start and never unloaded; otherwise loaded when a job waits."""
    idle_timeout: Duration = 600.0
    """A model that is not warm is unloaded after this long without a job."""
    load_timeout: Duration = 600.0
    """Longest time from start to ready."""
    run_timeout: Duration | None = None
    """Longest run of one attempt; unset: processing.worker_timeout."""
    release_timeout: Duration | None = Field(default=None, gt=0)
    """How long the engine may go on with a request that was cancelled or ran too long, before it is killed and started
    again; what else it runs is then run again. Unset: 10s, and 60s for image, video and pull models, whose steps cannot
    be interrupted."""
    memory: Size | None = None
    """Memory the model needs on its device, until it has been measured."""
    aliases: list[str] = []
    """Other names that callers may use."""
    context: int | None = Field(default=None, ge=1)
    """Context length in tokens; longer requests are refused before they wait."""
    fim: FimTemplate | None = None
    """How `suffix` is put before the model: qwen, deepseek, starcoder, codellama, or a text with {prefix} and
    {suffix}. Unset: a suffix is refused."""
    limits: Limits = Limits()
    """What one request may ask for at most."""
    request_defaults: dict[str, dict[str, Any]] = {}
    """By endpoint, fields that requests leave out; over those of the installation. null: no default."""
    fallback: list[str] = []
    """Other models, of the same type, that a job goes to in turn when this one has failed it."""
    description: str = ""
    """Shown to users."""
    options: dict[str, Any] = {}
    """Passed to the engine; `{home}` in a text is INFERQ_HOME."""

    @property
    def release_bound(self) -> float:
        """Seconds that the engine may go on with a request that was closed."""
        return self.release_timeout or (60.0 if self.type in ("image", "video", "pull") else 10.0)


class Settings(Section):
    """The whole configuration. `home` and `root` are set by the loader, not in the file."""

    directories: Directories = Directories()
    """Watched directories."""
    processing: Processing = Processing()
    """Running and retrying."""
    queue: Queue = Queue()
    """Redis and the ready sets."""
    api: Api = Api()
    """The HTTP gateway."""
    intelligent_routing: IntelligentRouting = IntelligentRouting()
    """The smart router."""
    monitoring: Monitoring = Monitoring()
    """Metrics and inspection."""
    security: Security = Security()
    """Keys and encryption."""
    deployment: Deployment = Deployment()
    """Where this runs."""
    storage: Storage = Storage()
    """Ledger and artifacts."""
    cache: Cache = Cache()
    """Answers that are given again."""
    media: Media = Media()
    """Files that callers name."""
    webhooks: Webhooks = Webhooks()
    """Messages about the ends of jobs."""
    hooks: HookRules = HookRules()
    """Code of installed packages that runs around each job."""
    hub: Hub = Hub()
    """Where models are pulled from."""
    devices: dict[str, DeviceSettings] = {}
    """Devices beyond what detection finds; the name is kind:index."""
    engines: dict[str, EngineSettings] = {}
    """How engines are started."""
    models: dict[str, ModelSettings] = {}
    """Models by public name."""
    tenants: dict[str, Tenant] = {}
    """Bounds of tenants by name; `"*"`: of all."""
    request_defaults: dict[str, dict[str, Any]] = REQUEST_DEFAULTS
    """By endpoint, what a request gets for fields that it leaves out; `max_tokens` only where the context has room.
    A context that is not given counts as 2,048 tokens."""
    home: Path = Field(default=Path("data"), exclude=True)
    """INFERQ_HOME, absolute."""
    root: Path = Field(default=Path("."), exclude=True)
    """Folder of the configuration file; engines' environments are relative to it."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        seen: dict[str, str] = {name: name for name in self.models}
        if PULL_MODEL in seen:
            raise ValueError(f"models.{PULL_MODEL}: this name belongs to inferq itself")
        seen[PULL_MODEL] = PULL_MODEL
        for name, model in self.models.items():
            for alias in model.aliases:
                if alias in seen:
                    raise ValueError(f"models.{name}.aliases: {alias!r} already names model {seen[alias]!r}")
                seen[alias] = name
        _check_chains(self.models)
        if self.queue.type == "local" and self.queue.redis_url:
            raise ValueError(
                "queue.redis_url: queue.type local uses the embedded server; remove one of the two"
            )
        return self

    @cached_property
    def served(self) -> dict[str, ModelSettings]:
        """Every model that jobs can run on: the configured ones, and inferq's own, which no list shows."""
        return {**self.models, PULL_MODEL: self._pull_model()}

    @property
    def models_dir(self) -> Path:
        """Where pulled models go, and where local ones are looked for."""
        return self.home / "models"

    def _pull_model(self) -> ModelSettings:
        """Moves bytes on the processor of whichever host has room; its engine resumes what was cut off."""
        pythons = [self.root / engine.python for engine in self.engines.values() if engine.python]
        return ModelSettings(
            engine="pull",
            source=str(self.models_dir),
            type="pull",
            device="cpu:0",
            slots=2,
            idle_timeout=60.0,
            load_timeout=60.0,
            run_timeout=self.hub.timeout,
            memory=128 * 2**20,
            options={
                **self.hub.model_dump(exclude={"timeout"}, exclude_none=True),
                "pythons": [str(python) for python in dict.fromkeys(pythons)],
            },
        )

    def tenant(self, name: str) -> Tenant:
        """The bounds of a tenant."""
        return self._tenants.get(name) or self._tenants["*"]

    @cached_property
    def _tenants(self) -> dict[str, Tenant]:
        general = self.tenants.get("*", Tenant())
        return {name: own.over(general) for name, own in self.tenants.items()} | {"*": general}

    def under_home(self, path: str | Path) -> Path:
        """An absolute path: relative ones lie under INFERQ_HOME."""
        return self.home / path

    def kind_of(self, engine: str) -> str:
        """The engine, as it is installed, that a model's `engine` stands for."""
        configured = self.engines.get(engine)
        return configured.kind if configured and configured.kind else engine

    @property
    def redis_url(self) -> str:
        """Where Redis is: as configured, else the embedded server's socket."""
        return self.queue.redis_url or f"unix://{self.run_dir / 'redis.sock'}"

    @property
    def run_dir(self) -> Path:
        """A short folder for sockets, one per INFERQ_HOME: socket paths end at 107 bytes, homes may be longer."""
        digest = hashlib.sha256(str(self.home).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"inferq-{os.getuid()}" / digest


def _check_chains(models: dict[str, ModelSettings]) -> None:
    """Raise ValueError for a chain that names an unknown model, one of another type, itself, or one model twice."""
    for name, model in models.items():
        where = f"models.{name}.fallback"
        for place, other in enumerate(model.fallback):
            if other not in models:
                raise ValueError(f"{where}: there is no model {other!r}")
            if models[other].type != model.type:
                kinds = f"{models[other].type}, {name!r} of type {model.type}"
                raise ValueError(f"{where}: {other!r} is of type {kinds}")
            if other == name or other in model.fallback[:place]:
                raise ValueError(f"{where}: {other!r} was tried before it comes again")
