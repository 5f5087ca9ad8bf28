"""Wait for the answers of any number of jobs over one subscribed connection.

Celery's Redis backend publishes each answer on a channel named after its key. An answer that is published without a
subscriber reaches no listener, so the listener reads the stored answers after each subscription, new or renewed. If
Redis restarts, or drops the connection because its output buffer is full, answers thus arrive late but are not missed.
Nothing is published for a job that is purged or lost, so the listener also reads the jobs' states periodically.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from producer.client.ending_tasks import end
from producer.client.waiters import LastAnswer, LatestAnswer, Waiter, Waiters
from producer.contract.names import answer_key, job_of_channel
from producer.errors import BrokerUnavailable
from producer.operations.answers import Answer
from producer.operations.exchanges import Operation
from producer.operations.standing import KnownAnswers, known_answers

if TYPE_CHECKING:
    from producer.broker.connections import AsyncLink

logger = logging.getLogger(__name__)

#: The listener pings a connection that has been silent this long, and drops it if nothing arrives in as long again.
SILENCE_S: Final = 10.0
#: In this time Redis can restart and load a large file; after a longer outage the waiting callers get an error.
OUTAGE_S: Final = 60.0
_OUTAGE: Final = "Redis was down for more than {:g} s while a result was awaited."
#: The connection stays open this long while no caller waits: a caller that waits for one job after another reuses it.
IDLE_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
RECHECK_S: Final = 20.0  #: Between two checks that awaited jobs exist: a lost one is found within a minute.
#: The maximum number of ids in one command, because Redis serves no other client while it runs the command.
CHUNK: Final = 500
#: After it has sent commands, the listener pauses for this long, so that the next command can carry several ids. The
#: first id after a quiet period is not delayed.
GATHERING_S: Final = 0.005

#: Runs an operation over connections to the broker and the result backend.
Run = Callable[[Operation[KnownAnswers]], Awaitable[KnownAnswers]]


class AnswerListener:
    """Waits for answers in one event loop. It connects at the first wait and disconnects when it is idle.

    While Redis refuses new connections, it reads answers over open ones with ``read_elsewhere``, by default `link.run`.
    """

    def __init__(self, link: AsyncLink, queue_prefix: str, read_elsewhere: Run | None = None) -> None:
        self._link = link
        self._read_elsewhere = read_elsewhere or link.run
        self._queue_prefix = queue_prefix
        self._waiters = Waiters()
        self._changed: set[str] = set()
        self._subscribed: set[str] = set()
        self._unchecked: set[str] = set()
        #: For each job whose existence the broker has not confirmed yet, the event loop's time when the wait began.
        self._unconfirmed: dict[str, float] = {}
        self._wake_subscriber = asyncio.Event()
        self._wake_checker = asyncio.Event()
        self._last_contact_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def wait(self, job_id: str) -> Answer:
        """Return the job's terminal answer, or ``unknown`` once neither message nor answer is left.

        Raises:
            BrokerUnavailable: the result backend was down for more than `OUTAGE_S`; or the broker was down that long,
                or refused the client, before it had confirmed that the job exists; or the listener was closed.
        """
        waiter = LastAnswer()
        with self._serving(job_id, waiter):
            return await waiter.get()

    async def watch(self, job_id: str) -> AsyncGenerator[Answer, None]:
        """Yield the job's states as it advances, and end after a terminal one or ``unknown``.

        A state may be left out if a later one follows soon. Close the generator to stop early.

        Raises:
            BrokerUnavailable: as in `wait`.
        """
        waiter = LatestAnswer()
        with self._serving(job_id, waiter):
            while not waiter.is_over:
                yield await waiter.get()

    @contextlib.contextmanager
    def _serving(self, job_id: str, waiter: Waiter) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        if job_id not in self._waiters:
            self._unconfirmed[job_id] = loop.time()
        self._waiters.add(job_id, waiter)
        self._mark_changed(job_id)
        if self._task is None or self._task.done():
            self._last_contact_s = loop.time()
            self._task = loop.create_task(self._run())
        try:
            yield
        finally:
            self._waiters.remove(job_id, waiter)
            if job_id not in self._waiters:
                self._unconfirmed.pop(job_id, None)
                self._mark_changed(job_id)

    async def close(self) -> None:
        """Close the connection; callers that still wait get `BrokerUnavailable`."""
        if self._task is not None:
            await end([self._task])
        self._waiters.fail_all("the client was closed while a result was awaited.")

    def _mark_changed(self, job_id: str) -> None:
        self._changed.add(job_id)
        self._wake_subscriber.set()

    async def _run(self) -> None:
        from redis.exceptions import RedisError

        pause_s = FIRST_PAUSE_S
        loop = asyncio.get_running_loop()
        try:
            while self._waiters:
                started_s = loop.time()
                try:
                    await self._session()
                except (RedisError, OSError) as error:
                    if self._last_contact_s > started_s:
                        pause_s = FIRST_PAUSE_S
                    if loop.time() - self._last_contact_s > OUTAGE_S:
                        self._waiters.fail_all(_OUTAGE.format(OUTAGE_S))
                        return
                    logger.warning(
                        "answers: lost the connection to %s (%s); trying again", self._link.shown, type(error).__name__
                    )
                    await self._read_without_channel()
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        except Exception as error:
            # A bug in this class must not leave callers waiting forever.
            for job_id in self._waiters:
                self._waiters.fail(job_id, error)
            raise

    async def _session(self) -> None:
        """Serve one connection; return after `IDLE_S` without a waiting caller, or raise if the connection breaks."""
        async with self._link.answers_channel() as channel:
            await channel.connect()
            self._subscribed.clear()
            self._unchecked.clear()
            self._changed = set(self._waiters)
            self._wake_subscriber.set()
            parts = [
                asyncio.create_task(part)
                for part in (self._subscribe(channel), self._receive(channel), self._check(), self._recheck())
            ]
            try:
                finished, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for part in finished:
                    part.result()
            finally:
                await end(parts)

    async def _subscribe(self, channel: Any) -> None:
        """Subscribe to the channels of awaited jobs, and unsubscribe from those that no caller awaits."""
        while True:
            try:
                async with asyncio.timeout(None if self._waiters else IDLE_S):
                    await self._wake_subscriber.wait()
            except TimeoutError:
                return
            self._wake_subscriber.clear()
            changed, self._changed = self._changed, set()
            joining = [job_id for job_id in changed if job_id in self._waiters and job_id not in self._subscribed]
            leaving = [job_id for job_id in changed if job_id not in self._waiters and job_id in self._subscribed]
            # The answer may have been published before a caller joined an existing subscription.
            if late := {job_id for job_id in changed & self._subscribed if job_id in self._waiters}:
                self._unchecked |= late
                self._wake_checker.set()
            self._subscribed.update(joining)
            self._subscribed.difference_update(leaving)
            for chunk in _chunks(leaving):
                await channel.unsubscribe(*map(answer_key, chunk))
            for chunk in _chunks(joining):
                await channel.subscribe(*map(answer_key, chunk))
            await asyncio.sleep(GATHERING_S)

    async def _receive(self, channel: Any) -> None:
        has_pinged = False
        while True:
            message = await channel.get_message(timeout=SILENCE_S)
            if message is None:
                if has_pinged:
                    raise TimeoutError(f"Redis sent nothing for {2 * SILENCE_S:g} s")
                has_pinged = True
                await channel.ping()
                continue
            has_pinged = False
            if message["type"] == "subscribe":
                self._unchecked.add(job_of_channel(message["channel"]))
                self._wake_checker.set()
                continue
            self._last_contact_s = asyncio.get_running_loop().time()
            if message["type"] == "message":
                job_id = job_of_channel(message["channel"])
                self._waiters.offer(job_id, Answer.from_meta(message["data"], job_id))

    async def _check(self) -> None:
        """Read the stored answers once after each confirmed subscription."""
        while True:
            await self._wake_checker.wait()
            self._wake_checker.clear()
            unchecked, self._unchecked = self._unchecked, set()
            for chunk in _chunks(job_id for job_id in unchecked if job_id in self._waiters):
                await self._read(chunk)
            await asyncio.sleep(GATHERING_S)

    async def _recheck(self) -> None:
        """Check periodically that the awaited jobs still exist.

        It checks all jobs every `RECHECK_S`, and those that the broker has not confirmed every `LONGEST_PAUSE_S`.
        """
        loop = asyncio.get_running_loop()
        checked_s = loop.time()
        while True:
            await asyncio.sleep(min(LONGEST_PAUSE_S, RECHECK_S))
            now_s = loop.time()
            is_time = now_s - checked_s >= RECHECK_S
            checked_s = now_s if is_time else checked_s
            unconfirmed = (job_id for job_id, since_s in self._unconfirmed.items() if since_s < now_s - LONGEST_PAUSE_S)
            for chunk in _chunks(self._waiters if is_time else unconfirmed):
                try:
                    fault = await self._read(chunk)
                except BrokerUnavailable as error:
                    fault = error
                if fault is not None:  # the result backend may still deliver answers while the broker is down
                    logger.debug("answers: could not check whether the awaited jobs still exist: %s", fault)
                    break

    async def _read_without_channel(self) -> None:
        for chunk in _chunks(self._waiters):
            with contextlib.suppress(BrokerUnavailable):
                await self._read(chunk, self._read_elsewhere)

    async def _read(self, job_ids: list[str], run: Run | None = None) -> BrokerUnavailable | None:
        """Read the jobs' states; returns the error if the broker is down."""
        known = await (run or self._link.run)(known_answers(self._queue_prefix, job_ids))
        self._last_contact_s = now_s = asyncio.get_running_loop().time()
        for job_id, answer in known.answers.items():
            self._unconfirmed.pop(job_id, None)
            self._waiters.offer(job_id, answer)
        if known.fault is not None:
            # Do not wait forever for a job that the broker has not confirmed: the job may not exist.
            for job_id in self._unconfirmed.keys() & set(job_ids):
                if not known.fault.may_pass:
                    self._waiters.fail(job_id, known.fault)
                elif now_s - self._unconfirmed[job_id] > OUTAGE_S:
                    self._waiters.fail(job_id, BrokerUnavailable(f"{_OUTAGE.format(OUTAGE_S)} {known.fault}"))
        return known.fault


def _chunks(job_ids: Iterable[str]) -> list[list[str]]:
    everything = list(job_ids)
    return [everything[start : start + CHUNK] for start in range(0, len(everything), CHUNK)]
