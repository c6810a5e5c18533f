"""The sections of `scheduler_config.yaml` other than models: one class per section, each key with its meaning."""

import base64
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from inferq.config.redis_url import checked as checked_address
from inferq.config.section import Section, unbuilt
from inferq.config.units import Duration, Size

_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_LATER = "is documented but not built in this release; leave it at its default"


class Directories(Section):
    """Watched directories. Relative paths lie under INFERQ_HOME."""

    watch_directory: Path = Path("llm_generated/raw")
    """Job files dropped here become jobs."""
    output_directory: Path = Path("llm_generated/processed")
    """Results: NAME.json for the job file NAME."""
    archive_directory: Path = Path("llm_generated/archive")
    """Job files whose job has ended well."""
    error_directory: Path = Path("llm_generated/errors")
    """Job files that were refused or failed, each with NAME.error.json."""
    temp_directory: Path = Path("llm_generated/temp")
    """Job files whose job is under way."""


class Processing(Section):
    """How jobs are run and retried."""

    mode: Literal["real_time", "batch", "hybrid"] = unbuilt(
        "real_time", f"a mode other than real_time {_LATER}"
    )
    """real_time: every file is a job at once."""
    max_workers: int | Literal["auto"] = "auto"
    """Upper bound of slots per replica; auto: what the model declares."""
    batch_size: int = unbuilt(50, f"batch mode {_LATER}")
    """Files per batch in batch mode."""
    batch_timeout: Duration = unbuilt(300.0, f"batch mode {_LATER}")
    """Longest wait for a batch to fill."""
    retry_attempts: int = Field(default=3, ge=1, le=100)
    """How often a job is tried before it is failed."""
    retry_delay: Duration = Field(default=5.0, ge=0, le=86400)
    """Longest pause before the second attempt after a fault that may pass; before each further one twice as long. The
    pause is drawn between none and that. 0.5 s at most where somebody waits for the answer."""
    retry_max_delay: Duration = Field(default=300.0, ge=0, le=86400)
    """Longest pause before any attempt."""
    breaker_failures: int = Field(default=5, ge=1, le=1000)
    """Failures of its engine in a row after which a replica takes no job for a while."""
    breaker_delay: Duration = Field(default=10.0, gt=0, le=300)
    """How long, and twice as long each time that the job which it then tries fails too, up to 300 s."""
    worker_timeout: Duration = 600.0
    """Longest run of one attempt."""
    drain_timeout: Duration = 20.0
    """How long a stopping replica lets running jobs finish before it hands them back."""


class Queue(Section):
    """Redis and the ready sets."""

    type: Literal["redis", "local"] = "redis"
    """redis; local is the same on the embedded server and refuses a redis_url."""
    redis_url: Annotated[str, AfterValidator(checked_address)] | None = None
    """redis://host:port/db, rediss://, unix://, or sentinel://host:port,host:port/db?master=NAME; unset: an embedded
    server is started by `inferq up`."""
    prefix: str = Field(default="inferq:", pattern=r"^[A-Za-z0-9_.-]+:$")
    """Prefix of all keys of this installation."""
    max_queue_size: int = Field(default=10000, ge=1)
    """Waiting jobs per model; one more is refused with 429."""
    max_queue_bytes: Size = 256 * 2**20
    """Bytes of waiting request bodies per model."""
    max_tenant_jobs: int | None = Field(default=None, ge=1)
    """Waiting jobs per model of one tenant; unset: half of max_queue_size where other tenants have keys, else all."""
    max_lane_jobs: dict[Literal["high", "medium", "low"], Annotated[int, Field(ge=1)]] = {}
    """Waiting jobs per model of a lane; a lane without a bound of its own has that of the model."""
    max_offline_jobs: int = Field(default=1000, ge=0)
    """Durable jobs accepted by SQL alone while Redis is away."""
    priority_levels: tuple[Literal["high", "medium", "low"], ...] = unbuilt(
        ("high", "medium", "low"), "the lanes are fixed: high, medium, low"
    )
    """The lanes."""
    policy: Literal["fair", "fcfs", "min_min"] = "fair"
    """Who is next: fair (lanes, and device seconds shared between tenants), fcfs (first come, first served) or min_min
    (the shortest by its estimate; long jobs may wait for ever). The others are for comparison: they know neither lanes
    nor weights. Another policy needs an empty queue; see docs/queues.md."""
    head_start: dict[Literal["high", "medium", "low"], float] = {"high": 300.0, "medium": 60.0, "low": 0.0}
    """Head start of each lane in device seconds."""
    max_scheduled_jobs: int = Field(default=10000, ge=1)
    """Jobs of one tenant that wait for their time or for other jobs; one more is refused with 429."""
    queue_timeout: Duration = Field(default=0.0, ge=0)
    """Longest wait in the queue of a job that states no `expires_at`; 0 for no end."""
    lease: Duration = Field(default=15.0, ge=1.0)
    """How long an attempt is trusted without a renewal."""

    def expiry(self, now: float) -> float | None:
        """When a job is given up that begins to wait now and states no end itself."""
        return now + self.queue_timeout if self.queue_timeout else None


class Api(Section):
    """The HTTP gateway."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=9000, ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    workers: int = unbuilt(
        1, "more than one api process is started as several `python -m api`, each with its own port"
    )
    """Uvicorn workers."""
    reload: bool = unbuilt(False, f"reload {_LATER}")
    """Development reload."""
    access_log: bool = False
    """One log line per request."""
    max_body: Size = 32 * 2**20
    """Largest request body."""
    header_timeout: Duration = Field(default=15.0, gt=0)
    """Longest time in which the headers of a request have to come."""
    max_connections: int = Field(default=16_384, ge=1)
    """Open connections, one for each awaited call; more are refused with 503. Fewer where the process may open fewer
    files. On up to 64 connections more, /health, /livez and /readyz are still answered."""
    public_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """Where callers reach the gateway, for links in answers; unset: what their request says."""
    link_ttl: Duration = 3600.0
    """How long a link to an artifact opens without a key."""
    idempotency_ttl: Duration = Field(default=86_400.0, gt=0)
    """How long an Idempotency-Key stands for its job."""
    wait_timeout: Duration = 600.0
    """Longest wait of an interactive call."""
    ssl_enabled: bool = unbuilt(False, f"TLS {_LATER}; put a TLS proxy in front")
    """Serve HTTPS."""
    ssl_cert_file: str | None = unbuilt(None, f"TLS {_LATER}; put a TLS proxy in front")
    """Certificate file."""
    ssl_key_file: str | None = unbuilt(None, f"TLS {_LATER}; put a TLS proxy in front")
    """Key file."""


class PriorityRules(Section):
    """Keywords that set a priority."""

    urgent_keywords: list[str] = unbuilt(["urgent", "priority", "asap"], f"routing {_LATER}")
    """Words that make a job urgent."""
    low_priority_keywords: list[str] = unbuilt(["test", "demo", "sample"], f"routing {_LATER}")
    """Words that make a job unimportant."""


class IntelligentRouting(Section):
    """The smart router."""

    enabled: bool = unbuilt(False, f"intelligent routing {_LATER}")
    """Route by content."""
    geo_detection: bool = unbuilt(False, f"intelligent routing {_LATER}")
    """Detect places."""
    industry_classification: bool = unbuilt(False, f"intelligent routing {_LATER}")
    """Detect the industry."""
    priority_rules: PriorityRules = PriorityRules()
    """Keyword rules."""


class AlertThresholds(Section):
    """Thresholds of alerts."""

    cpu_usage: float = unbuilt(80.0, f"alerting {_LATER}")
    """Percent."""
    memory_usage: float = unbuilt(85.0, f"alerting {_LATER}")
    """Percent."""
    queue_size: int = unbuilt(1000, f"alerting {_LATER}")
    """Jobs."""
    error_rate: float = unbuilt(10.0, f"alerting {_LATER}")
    """Percent."""


class Email(Section):
    """E-mail notifications."""

    enabled: bool = unbuilt(False, f"e-mail notification {_LATER}")
    """Send e-mail."""
    smtp_server: str = ""
    """Server."""
    smtp_port: int = 587
    """Port."""
    username: str = ""
    """User."""
    password: SecretStr = SecretStr("")
    """Password."""
    recipients: list[str] = []
    """Addresses."""


class Slack(Section):
    """Slack notifications."""

    enabled: bool = unbuilt(False, f"Slack notification {_LATER}")
    """Post to Slack."""
    webhook_url: SecretStr = SecretStr("")
    """Incoming webhook."""


class NotificationChannels(Section):
    """Where alerts go."""

    email: Email = Email()
    """E-mail."""
    slack: Slack = Slack()
    """Slack."""


class Monitoring(Section):
    """Metrics and inspection."""

    enabled: bool = True
    """Serve /metrics."""
    metrics_retention_days: int = unbuilt(30, f"metrics retention {_LATER}")
    """Days."""
    flower_enabled: bool = True
    """Start Flower with the stack."""
    flower_port: int = Field(default=5555, ge=0, le=65535)
    """Flower's port on 127.0.0.1."""
    alert_thresholds: AlertThresholds = AlertThresholds()
    """Alert thresholds."""
    notification_channels: NotificationChannels = NotificationChannels()
    """Alert channels."""


def _webhook_secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    try:
        size = len(base64.b64decode(text.removeprefix("whsec_"), validate=True))
    except ValueError:
        size = 0
    if not text.startswith("whsec_") or not 24 <= size <= 64:
        raise ValueError("write whsec_ and the base64 of 24 to 64 random bytes")
    return secret


class Security(Section):
    """Keys and encryption."""

    api_key_enabled: bool = unbuilt(True, "every call needs a key; there is no switch for that")
    """Demand API keys."""
    api_keys: dict[str, SecretStr] = unbuilt(
        {}, "keys are made by `inferq keys create` and kept hashed, not in a file"
    )
    """Keys by role."""
    jwt_enabled: bool = unbuilt(False, f"JWT {_LATER}")
    """Accept JWTs."""
    jwt_secret: SecretStr | None = unbuilt(None, f"JWT {_LATER}")
    """JWT secret."""
    jwt_expiration: Duration = unbuilt(3600.0, f"JWT {_LATER}")
    """JWT life time."""
    encryption_enabled: bool = unbuilt(False, f"encryption at rest {_LATER}")
    """Encrypt fields."""
    encryption_key: SecretStr | None = unbuilt(None, f"encryption at rest {_LATER}")
    """Key."""
    encrypt_sensitive_fields: list[str] = unbuilt([], f"encryption at rest {_LATER}")
    """Fields."""
    link_secret: Annotated[SecretStr, Field(min_length=32)] | None = None
    """Signs links to artifacts; unset: made at first use and kept in INFERQ_HOME/links.key. Gateways with different
    homes need the same one."""
    webhook_secret: Annotated[SecretStr, AfterValidator(_webhook_secret)] | None = None
    """Signs webhooks: `whsec_` and the base64 of 24 to 64 bytes; unset: made at first use and kept in
    INFERQ_HOME/webhooks.key. Schedulers with different homes need the same one."""


class Deployment(Section):
    """Where this runs."""

    environment: Literal["development", "production"] = "development"
    """production: a scheduler does not start on a Redis without AOF and noeviction. development: it warns."""
    debug_mode: bool = False
    """Log at debug level."""
    auto_reload: bool = unbuilt(False, f"reload {_LATER}")
    """Development reload."""


class Storage(Section):
    """Ledger and artifacts."""

    database_url: str = "sqlite:///inferq.db"
    """SQLAlchemy URL; postgresql+asyncpg://... for PostgreSQL. A relative SQLite path lies under INFERQ_HOME."""
    artifacts_url: str = "artifacts"
    """fsspec URL or a folder under INFERQ_HOME."""
    inline_result: Size = 256 * 2**10
    """Results up to this size are kept in the record, larger ones as artifacts."""
    result_ttl: Duration = 600.0
    """How long a finished durable job is also kept in Redis."""


class Cache(Section):
    """Answers that are given again without running: embeddings, rerank, transcriptions, pictures with a seed.

    A caller leaves it out with `Cache-Control: no-store`.
    """

    enabled: bool = True
    """Use the cache."""
    shared: bool = True
    """One cache for all keys: an answer comes back to whoever asks the same. false: each tenant has its own."""
    ttl: Duration = 3600.0
    """How long an answer is kept."""
    max_entry: Size = 2**20
    """Largest answer that is kept."""
    max_bytes: Size = 64 * 2**20
    """Bytes of all answers in Redis, 512 for each entry included; the least recently used go first."""
    max_process_bytes: Size = 32 * 2**20
    """The same in each api process."""


def _written_off(value: Any) -> Any:
    return "off" if value is False else value


def _host(text: str) -> str:
    """A host name, an address or a network, in the one spelling that is compared."""
    try:
        return str(ip_network(text))
    except ValueError as error:
        name = text.lower().rstrip(".")
        if "/" in name or name.replace(".", "").isdigit() or not _HOST_NAME.fullmatch(name):
            raise ValueError(f"{text!r} is no host name, address or network: {error}") from None
        return name


class Media(Section):
    """Files that callers name: what is fetched for them, and how large it may be."""

    # YAML reads a bare `off` as false.
    fetch: Annotated[Literal["public", "listed", "off"], BeforeValidator(_written_off)] = "public"
    """Which URLs are fetched. public: on public addresses, and on allow_hosts; listed: on allow_hosts; off: none."""
    allow_http: bool = False
    """Also fetch http:// URLs, whose content anybody on the way can change."""
    allow_hosts: list[Annotated[str, AfterValidator(_host)]] = []
    """Host names, addresses and networks (10.1.0.0/16) that may be private, on any port. Whoever may call may read
    what answers there."""
    max_upload: Size = Field(default=512 * 2**20, ge=1)
    """Largest upload, and largest body with uploads."""
    max_remote: Size = Field(default=64 * 2**20, ge=1)
    """Largest file that is fetched."""
    fetch_timeout: Duration = Field(default=30.0, gt=0)
    """Longest time for one file, redirects included."""
    request_fetch_timeout: Duration = Field(default=60.0, gt=0)
    """Longest time for all files of one request that are fetched, waiting for their turn included."""
    max_fetches: int = Field(default=32, ge=1)
    """Most files that one process fetches at a time; one tenant at most half of them, rounded up."""
    max_image_pixels: int = Field(default=40_000_000, ge=1)
    """Most pixels, width times height, of a picture or a video's frame."""
    max_audio_seconds: Duration = Field(default=21_600.0, gt=0)
    """Longest sound or video."""
    max_frames: int = Field(default=100_000, ge=1)
    """Most frames of a video or of an animated picture."""
    max_media_per_request: int = Field(default=256, ge=1)
    """Most files that one request names."""
    max_media_bytes: Size | None = Field(default=None, ge=1)
    """Largest sum of the files that one request names; one that is named twice counts twice. By default max_upload."""

    @property
    def most_bytes(self) -> int:
        """The largest sum of the files of one request."""
        return self.max_media_bytes or self.max_upload


class HookRules(Section):
    """Code of installed packages that runs around each job."""

    enabled: list[str] = []
    """Names of the hooks that run, in this order; none runs unless it is named."""
    timeout: Duration = Field(default=2.0, gt=0, le=60)
    """Longest time that anything waits for one of them."""


class Webhooks(Section):
    """Messages about the ends of jobs, to addresses that callers name."""

    allow_http: bool = False
    """Also send to http:// URLs, where anybody on the way can read along."""
    allow_hosts: list[Annotated[str, AfterValidator(_host)]] = []
    """Host names, addresses and networks (10.1.0.0/16) that may be private, on any port."""
    timeout: Duration = Field(default=15.0, gt=0, le=300)
    """Longest time that a receiver may take to answer."""
    max_concurrent: int = Field(default=16, ge=1, le=256)
    """Messages on their way at a time; to one host at most a quarter of them, rounded up."""
    keep: Duration = Field(default=604_800.0, gt=0)
    """How long a message that has arrived, or was given up, is still listed."""
