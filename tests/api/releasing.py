"""What the scheduler process does for jobs that wait, beside an API under test."""

import asyncio

from api.context import Context
from inferq.config import Settings
from queues.celery_app import make_app
from queues.recurring import Recurring
from queues.releaser import Releaser
from queues.signals import Signals


async def released(settings: Settings, context: Context) -> None:
    """Release what is due, and fill in what can be filled first."""
    signals = Signals(make_app(settings))
    releaser = Releaser(
        context.gateway.queue, context.storage, signals, settings, context.catalog, context.door
    )
    await releaser.fill_once()
    while releaser.errands.busy:
        await asyncio.sleep(0.01)
    await releaser.run_once()


async def recurred(settings: Settings, context: Context) -> None:
    """Make the jobs of the schedules whose time has come."""
    recurring = Recurring(context.gateway.queue, context.storage, settings, context.catalog, context.door)
    await recurring.run_once()
    while recurring.errands.busy:
        await asyncio.sleep(0.01)
