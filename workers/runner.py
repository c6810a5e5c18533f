"""Running one attempt: forward it, answer its caller, end it, and take the next job with the same call.

How an attempt ends:

1. The engine answered: succeeded.
2. The engine refused: failed, with the engine's words.
3. The engine died, broke off, or could not reach what it needs: run again while attempts are left, unless part of
   the answer was sent, or the engine has died twice while it ran this job and no other: failed.
4. It ran too long: failed.
5. Its caller is gone: cancelled.
6. It was cancelled or lost its lease: nothing is written, Redis has decided. A lease that could only not be renewed
   may still hold: run again.
7. The replica drains and its time is up: handed back, the attempt does not count.
8. The artifact store could not take the answer, or give the job's files, until the time was up: run again. A caller
   who waits for an answer that is not kept is told at once: failed.
9. The engine ran out of memory: asked once more in the same attempt, alone, and then failed. Where part of the answer
   was passed on: like 3.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import TypeVar

import aiohttp

from inferq import errors, failpoints
from inferq.errors import LeaseLost
from inferq.hooks import Hooks
from inferq.streams import fold
from queues import frames
from queues.attempts import Attempt, Attempts, Finish, Operation, Outcome
from queues.frames import FrameKind
from queues.reply_writer import ReplyWriter
from queues.signals import Signals
from storage.artifacts import ArtifactStore
from workers import endings
from workers.device_clock import DeviceClock
from workers.endings import Endings, failure_of
from workers.files import Files
from workers.forward import EVENTS, Body, Break, EngineBroke, EngineRefused, Pace, Piece, forward
from workers.lane_priority import with_priority
from workers.room import Room
from workers.running import Charge, Running
from workers.storing import patiently

log = logging.getLogger(__name__)

T = TypeVar("T")
_GONE = "the caller is gone or reads too slowly"


class _CallerGone(Exception):
    """Nobody reads the answer."""


class Runner:
    """Runs attempts of one replica. `running` (by token) is what the leases are renewed for; `done` counts ended ones;
    `endings` says what becomes of jobs, and whether the engine is well.

    `on_broken` is called when the engine broke off or was too slow, before the next job is asked for. `died` says
    whether the life of the engine is over that had this session. `released` is called with the id of a job whose
    request was closed before the engine had answered, and returns when the engine no longer works on it: until then
    its slot is taken.
    """

    def __init__(
        self,
        attempts: Attempts,
        writer: ReplyWriter,
        signals: Signals,
        artifacts: ArtifactStore,
        files: Files,
        *,
        inline_result: int,
        judge: Endings,
        session: Callable[[], aiohttp.ClientSession | None],
        on_broken: Callable[[], None],
        died: Callable[[object], Awaitable[bool]],
        released: Callable[[str], Awaitable[None]],
        hooks: Hooks | None = None,
        passes_lanes: bool = False,
    ):
        self._passes_lanes = passes_lanes
        self._hooks = hooks
        self.running: dict[str, Running] = {}
        self.done = 0
        self._attempts = attempts
        self._writer = writer
        self._signals = signals
        self._artifacts = artifacts
        self._files = files
        self._inline = inline_result
        self.endings = judge
        self._session = session
        self._on_broken = on_broken
        self._died = died
        self._released = released
        self._clock = DeviceClock()
        self._room = Room()
        self._pace = Pace(lambda: len(self.running))

    @property
    def closed(self) -> bool:
        """A job runs alone, or waits until it can: no other one is to be taken now."""
        return self._room.closed

    async def run(self, attempt: Attempt, *, may_claim: Callable[[], bool], slot: str = "") -> Attempt | None:
        """Run an attempt to its end; the next job for the slot, if `may_claim()` then allows one and one waits."""
        failpoints.reach("runner.claimed")
        self._signals.started(attempt.job)
        # A task of its own: whatever stops this attempt must not reach the slot that goes on to the next job.
        task = asyncio.create_task(self._answer(attempt))
        running = self.running[attempt.token] = Running(attempt, task, Charge(self._clock))
        try:
            finish = await self._outcome(running)
            finish = replace(finish, seconds=running.charge.end())
            # Whoever waits is told at once; the slot's next job waits for the engine.
            failpoints.reach("runner.answered")
            go_on = _no if running.asked else may_claim
            state, following = await self._finish(attempt, finish, go_on, slot)
            failpoints.reach("runner.finished")
            self._note_end(running, finish, state)
            if running.asked:
                await self._released(attempt.id)
                following = await self._attempts.claim(slot) if may_claim() else None
        finally:
            self.running.pop(attempt.token, None)
            if running.asked:
                self._room.let()
        return following

    def _note_end(self, running: Running, finish: Finish, state: str) -> None:
        self.running.pop(running.attempt.token)
        self.done += 1
        if state != "stale":
            message = finish.failure.message if finish.failure else ""
            self._signals.ended(running.attempt.id, state, runtime=finish.seconds, message=message)

    async def _outcome(self, running: Running) -> Finish:
        """How the attempt ended; the numbers are those of the module's docstring."""
        attempt = running.attempt
        await self._ended(running)
        try:
            finish = running.task.result()  # 1
            self.endings.breaker.succeeded()
            return finish
        except EngineRefused as refused:
            outcome, failure = Outcome.FAILED, refused.failure  # 2
            self.endings.breaker.succeeded()
        except EngineBroke as broke:
            if broke.failure is None:
                self._on_broken()
            alone = broke.how is Break.CUT and not running.company
            died = alone and await self._died(running.engine)
            outcome, failure = self.endings.broken(running, broke, died=died)  # 3, 9
        except _CallerGone:
            outcome, failure = Outcome.CANCELLED, failure_of("caller_gone", _GONE, 499)  # 5
        except errors.NotFound as gone:
            outcome, failure = Outcome.FAILED, failure_of("file_gone", gone.message, 410)  # 2
        except LeaseLost as lost:
            outcome, failure = Outcome.RETRY, failure_of("lease_lost", lost.message, 503)  # 6
        except errors.StoreUnavailable as away:
            outcome, failure = Outcome.FAILED, endings.store_failure(away.message)  # 8
        except asyncio.CancelledError:
            outcome, failure = endings.stopped(running)  # 4, 5, 6, 7, 8
        except Exception as error:
            log.exception("running job %s failed", attempt.id)
            outcome, failure = (
                Outcome.RETRY,
                failure_of("internal_error", f"the replica failed: {error}", 500),
            )
        ran = time.monotonic() - running.began
        return self.endings.failed(attempt, failure, outcome, ran=ran)

    async def _ended(self, running: Running) -> None:
        """Wait for its end, which is made when its time is up."""
        done, _ = await asyncio.wait({running.task}, timeout=running.attempt.job.spec.run_timeout or None)
        if not done:
            at_engine = running.asked and running.store is None
            endings.stop_late(running)
            await asyncio.wait({running.task})
            if at_engine:
                self._on_broken()

    async def _answer(self, attempt: Attempt) -> Finish:
        spec = attempt.job.spec
        if self._hooks:
            await self._hooks.before_run(attempt.job)
        async with AsyncExitStack() as held:
            body = await self._patiently(attempt, lambda: held.enter_async_context(self._files.handed(spec)))
            if self._passes_lanes:
                body = with_priority(body, spec.lane)
            running = self.running[attempt.token]
            try:
                return await self._ask(running, body)
            except EngineBroke as broke:
                if not endings.no_memory(broke) or running.begun:
                    raise
                log.warning(
                    "job %s needs more memory than there is; it is asked for once more, alone", attempt.id
                )
            running.alone = True
            try:
                return await self._ask(running, body)
            except EngineBroke as broke:
                raise endings.advised(broke) from None

    async def _ask(self, running: Running, body: bytes) -> Finish:
        """Ask the engine, when there is room for this request, and pass its answer on."""
        async with self._room.enter(alone=running.alone):
            session = self._session()
            if session is None:
                raise EngineBroke("the engine is not ready", how=Break.ABSENT)
            running.asked, running.engine = True, session
            self._note_company(running)
            asked = forward(session, running.attempt.job.spec, body, self._pace, alone=running.alone)
            try:
                async with aclosing(asked) as answer:
                    return await self._passed_on(running, answer)
            except (EngineRefused, EngineBroke):
                running.asked = False
                raise
            finally:
                if running.asked:
                    # The engine may go on with it for a while: nobody is alone until it has let go.
                    self._room.hold()

    def _note_company(self, running: Running) -> None:
        beside = [each for each in self.running.values() if each.asked and each is not running]
        for each in beside:
            each.company = True
        running.company = bool(beside)

    async def _patiently(self, attempt: Attempt, call: Callable[[], Awaitable[T]]) -> T:
        return await patiently(self.running[attempt.token], call)

    async def _passed_on(self, running: Running, answer: AsyncGenerator[Body | Piece, None]) -> Finish:
        """Pass the pieces of an answer on as they come; the end that they amount to.

        Events that say the end go out with the finish, not before: clients hang up when they have read them, and
        that must not look like a caller who left a running job.
        """
        attempt = running.attempt
        kept = attempt.job.spec.kept
        seen: list[bytes] = []
        sent, held = 0, b""
        media_type = EVENTS
        async for part in answer:
            if isinstance(part, Body):
                running.asked = False
                return await self._whole(attempt, part)
            media_type = part.media_type
            if held:  # it was not the end after all
                await self._pass(attempt, sent, held)
                sent, held = sent + 1, b""
            if part.final:
                held = part.data
            else:
                await self._pass(attempt, sent, part.data)
                sent += 1
            if kept:
                seen.append(part.data)
                if media_type == EVENTS:
                    await _insist(partial(self._writer.keep, attempt, part.data))
            if self._writer.unreachable(attempt) and not kept:
                raise _CallerGone
        running.asked = False
        await self._writer.drain(attempt)
        finish = Finish(outcome=Outcome.SUCCEEDED, frame=_ending(attempt, sent, held))
        if not kept:
            return finish
        if media_type != EVENTS:
            return await self._stored(attempt, finish, b"".join(seen), media_type)
        data, media_type = fold(attempt.job.spec.endpoint, b"".join(seen))
        return await self._stored(attempt, finish, await self._kept(attempt, data), media_type)

    async def _pass(self, attempt: Attempt, number: int, data: bytes) -> None:
        self.running[attempt.token].begun = True
        # Followers of a durable job are told when it starts over, so nothing binds it to its first attempt.
        if number or attempt.job.spec.durable:
            self._writer.chunk(attempt, number, data)
        elif not await _insist(partial(self._writer.first, attempt, data)):
            raise LeaseLost("the attempt is no longer trusted")

    async def _whole(self, attempt: Attempt, body: Body) -> Finish:
        data = await self._kept(attempt, body.data)
        frame = b""
        if attempt.reply_to:
            frame = frames.pack_result(attempt.id, attempt.token, data, body.media_type)
        finish = Finish(outcome=Outcome.SUCCEEDED, frame=frame)
        if len(data) > self._inline and not attempt.job.spec.kept:
            # The caller has it with this call, and nobody may ask for it later: no artifact is left behind.
            return finish
        return await self._stored(attempt, finish, data, body.media_type)

    async def _kept(self, attempt: Attempt, data: bytes) -> bytes:
        return await self._patiently(attempt, lambda: self._files.kept(attempt.job.spec, data))

    async def _stored(self, attempt: Attempt, finish: Finish, data: bytes, media_type: str) -> Finish:
        """The finish with its result: in the record, or as an artifact when it is too big for one or a file."""
        if len(data) <= self._inline and not self._files.answers_files(attempt.job.spec):
            return replace(finish, result=data, result_type=media_type)
        artifact = await self._patiently(attempt, lambda: self._artifacts.put(data, media_type))
        failpoints.reach("runner.stored")
        return replace(finish, artifact=artifact.sha256, result_type=media_type)

    async def _finish(
        self, attempt: Attempt, finish: Finish, may_claim: Callable[[], bool], slot: str
    ) -> tuple[str, Attempt | None]:
        """Write the end; while Redis is away again and again: the slot has no use without it, and late is safe."""
        operation = Operation()
        return await _insist(
            lambda: self._attempts.finish(
                attempt, finish, claim_next=may_claim(), slot=slot, operation=operation
            )
        )


def _no() -> bool:
    return False


def _ending(attempt: Attempt, sent: int, last: bytes) -> bytes:
    """The frames that end a stream of so many chunks: the last chunk where one was held, and the end."""
    chunk = frames.pack(attempt.id, FrameKind.CHUNK, attempt.token, sent, last) if last else b""
    return chunk + frames.pack(attempt.id, FrameKind.END, attempt.token, sent + bool(last), b"")


async def _insist(call: Callable[[], Awaitable[T]]) -> T:
    """Call until Redis answers. What must not wait so long is stopped by the lease's own clock."""
    while True:
        try:
            return await call()
        except errors.QueueUnavailable as error:
            log.warning("waiting: %s", error.message)
            await asyncio.sleep(0.2)
