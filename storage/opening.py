"""Opens the stores of one process from its settings and closes them together; it must not do more."""

from dataclasses import dataclass

from inferq.config import Settings
from inferq.media.reference import place_of
from storage import revision
from storage.artifacts import ArtifactStore
from storage.dead import DeadLetters
from storage.deliveries import Deliveries
from storage.groups import GroupStore
from storage.idempotency import Claims
from storage.keys import KeyStore
from storage.ledger import Ledger
from storage.media import MediaStore
from storage.pauses import PauseStore
from storage.schedules import ScheduleStore
from storage.usage import UsageStore
from storage.waiting import Waiting


@dataclass(frozen=True, slots=True)
class Storage:
    """The stores of one process. `ledger` and `keys` share one database."""

    ledger: Ledger
    keys: KeyStore
    artifacts: ArtifactStore
    media: MediaStore

    @property
    def claims(self) -> Claims:
        """What the callers' idempotency keys stand for."""
        return Claims(self.ledger.database)

    @property
    def deliveries(self) -> Deliveries:
        """Webhook messages."""
        return Deliveries(self.ledger.database)

    @property
    def pauses(self) -> PauseStore:
        """What operators have stopped."""
        return PauseStore(self.ledger.database)

    @property
    def usage(self) -> UsageStore:
        """What tenants have used."""
        return UsageStore(self.ledger.database)

    @property
    def waiting(self) -> Waiting:
        """The scheduled jobs of the ledger."""
        return Waiting(self.ledger.database)

    @property
    def groups(self) -> GroupStore:
        """Jobs that were accepted together."""
        return GroupStore(self.ledger.database)

    @property
    def schedules(self) -> ScheduleStore:
        """Jobs that come again."""
        return ScheduleStore(self.ledger.database)

    @property
    def dead(self) -> DeadLetters:
        """The failed jobs of the ledger."""
        return DeadLetters(self.ledger.database)

    async def close(self) -> None:
        await self.media.close()
        await self.ledger.close()


async def open_storage(settings: Settings) -> Storage:
    """Open what `settings.storage` names. Raises ConfigError; StoreUnavailable also for an old schema."""
    url = settings.storage.database_url
    await revision.check(url, settings.home)
    artifacts = await ArtifactStore.open(settings.storage.artifacts_url, settings.home)
    ledger = await Ledger.open(url, settings.home)
    media = MediaStore(artifacts, settings.media, ours=_places(settings))
    return Storage(ledger, KeyStore(ledger.database), artifacts, media)


def _places(settings: Settings) -> set[str]:
    """Where the gateway is, as far as the configuration says, from outside and from this machine."""
    api = settings.api
    urls = [
        api.public_url or "",
        *(f"http://{host}:{api.port}" for host in (api.host, "127.0.0.1", "localhost")),
    ]
    return {place for url in urls if (place := place_of(url))}
