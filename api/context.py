"""What every handler may need, made once at start-up and passed by `app.state`. Holds no logic of a request."""

import asyncio
import time
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import Scope

from api.auth import Caller, KeyCache
from api.local_models import LocalModels
from api.telemetry import Telemetry
from inferq.catalog import Catalog
from inferq.config import Settings
from inferq.media.links import load_secret
from queues import Gateway
from queues.door import Door
from storage import Storage
from storage.media import MediaStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    settings: Settings
    storage: Storage
    gateway: Gateway
    catalog: Catalog
    keys: KeyCache
    telemetry: Telemetry
    link_secret: bytes
    door: Door
    started: float = field(default_factory=time.time)
    local_models: LocalModels = field(default_factory=LocalModels)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server stops: streams that could go on for hours end, and their readers come back elsewhere."""

    @classmethod
    def build(cls, settings: Settings, storage: Storage, gateway: Gateway) -> "Context":
        telemetry = Telemetry()
        secret = settings.security.link_secret
        return cls(
            settings=settings,
            storage=storage,
            gateway=gateway,
            catalog=Catalog(settings),
            keys=KeyCache(storage.keys.find),
            telemetry=telemetry,
            link_secret=load_secret(settings.home, secret.get_secret_value() if secret else None),
            door=Door(settings, gateway.queue, storage.media, gateway.hooks),
        )

    @property
    def media(self) -> MediaStore:
        return self.storage.media


def context_of(request: Request) -> Context:
    found: Context = request.scope["app"].state.context
    return found


def caller_of(request: Request) -> Caller:
    """Who calls. Only for routes that need a key; the route has put it there."""
    found: Caller = request.scope["caller"]
    return found


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The request's headers as a mapping, made once per request: a lookup in ASGI's list walks all of it."""
    found: dict[bytes, bytes] | None = scope.get("header_map")
    if found is None:
        found = scope["header_map"] = dict(scope["headers"])
    return found


def text_header(scope: Scope, name: bytes) -> str | None:
    value = headers_of(scope).get(name)
    return None if value is None else value.decode("latin-1").strip()
