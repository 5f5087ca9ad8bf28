"""Wait for answers over one subscription connection, however many jobs are awaited.

Celery's Redis backend publishes each answer on a channel named after its key. A message published without a
subscriber is lost, so after each subscription, new or renewed, the listener reads the stored answers. A restart of
Redis or a full output buffer is thus only a delay. A job that is purged or lost publishes nothing, so the listener also
reads the jobs' state periodically.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from producer.client.ending_tasks import end
from producer.contract.names import answer_key
from producer.errors import BrokerUnavailable
from producer.operations.answers import Answer
from producer.operations.standing import glance

if TYPE_CHECKING:
    from producer.broker.connections import AsyncLink

logger = logging.getLogger(__name__)

#: The listener pings a connection that has been silent this long, and drops it after as long again.
SILENCE_S: Final = 10.0
#: Long enough for a restart that loads a large file; a longer outage fails the waiting callers.
OUTAGE_S: Final = 60.0
#: Keeps the connection open between jobs of a caller that waits for one after another.
IDLE_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
#: A client waiting for a lost job learns of it within a minute, even if one look fails.
LOOK_AGAIN_S: Final = 20.0
#: Ids in one command, during which Redis serves no other client.
CHUNK: Final = 500
#: Pause between two commands, in which the ids of a burst gather; a single id is not delayed.
GATHERING_S: Final = 0.005

_CHANNEL_PREFIX: Final = answer_key("")


class AnswerListener:
    """Waits for answers in one event loop. It connects at the first wait and disconnects when idle."""

    def __init__(self, link: AsyncLink, queue_prefix: str) -> None:
        self._link = link
        self._queue_prefix = queue_prefix
        self._waiters: dict[str, set[asyncio.Future[Answer]]] = {}
        self._changed: set[str] = set()
        self._subscribed: set[str] = set()
        self._unchecked: set[str] = set()
        #: Since when each job is awaited whose existence the broker has not confirmed yet, by the event loop's clock.
        self._unseen: dict[str, float] = {}
        self._wake_subscriber = asyncio.Event()
        self._wake_checker = asyncio.Event()
        self._heard_at_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def wait(self, job_id: str) -> Answer:
        """Return the job's terminal answer, or ``unknown`` once neither message nor answer is left.

        Raises:
            BrokerUnavailable: Redis was down for more than `OUTAGE_S`, or the listener was closed. The broker may be
                down for longer once it has confirmed that the job exists.
        """
        loop = asyncio.get_running_loop()
        arrival: asyncio.Future[Answer] = loop.create_future()
        if job_id not in self._waiters:
            self._waiters[job_id] = set()
            self._unseen[job_id] = loop.time()
        self._waiters[job_id].add(arrival)
        self._note(job_id)
        if self._task is None or self._task.done():
            self._heard_at_s = loop.time()
            self._task = loop.create_task(self._run())
        try:
            return await arrival
        finally:
            waiters = self._waiters[job_id]
            waiters.discard(arrival)
            if not waiters:
                del self._waiters[job_id]
                self._unseen.pop(job_id, None)
                self._note(job_id)

    async def close(self) -> None:
        """Close the connection; callers that still wait get `BrokerUnavailable`."""
        if self._task is not None:
            await end([self._task])
        self._fail_all("the client was closed while a result was awaited.")

    def _note(self, job_id: str) -> None:
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
                    if self._heard_at_s > started_s:
                        pause_s = FIRST_PAUSE_S
                    if loop.time() - self._heard_at_s > OUTAGE_S:
                        self._fail_all(_away())
                        return
                    logger.warning(
                        "answers: lost the connection to %s (%s); trying again", self._link.shown, type(error).__name__
                    )
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        except Exception as error:
            # A bug in this class must not leave callers waiting forever.
            for job_id in list(self._waiters):
                self._resolve(job_id, error)
            raise

    async def _session(self) -> None:
        """Serve one connection until it breaks (raises) or no caller has waited for `IDLE_S` (returns)."""
        async with self._link.answers_channel() as channel:
            await channel.connect()
            self._subscribed.clear()
            self._unchecked.clear()
            self._changed = set(self._waiters)
            self._wake_subscriber.set()
            parts = [
                asyncio.create_task(part)
                for part in (self._subscribe(channel), self._read(channel), self._check(), self._look_again())
            ]
            try:
                finished, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for part in finished:
                    part.result()
            finally:
                await end(parts)

    async def _subscribe(self, channel: Any) -> None:
        """Make the subscriptions follow the waiters."""
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
            # A caller that joins an existing subscription may have missed its message.
            if late := changed & self._waiters.keys() & self._subscribed:
                self._unchecked |= late
                self._wake_checker.set()
            self._subscribed.update(joining)
            self._subscribed.difference_update(leaving)
            for chunk in _chunks(leaving):
                await channel.unsubscribe(*map(answer_key, chunk))
            for chunk in _chunks(joining):
                await channel.subscribe(*map(answer_key, chunk))
            await asyncio.sleep(GATHERING_S)

    async def _read(self, channel: Any) -> None:
        asked = False
        while True:
            message = await channel.get_message(timeout=SILENCE_S)
            if message is None:
                if asked:
                    raise TimeoutError(f"nothing heard for {2 * SILENCE_S:g} s")
                asked = True
                await channel.ping()
                continue
            asked = False
            if message["type"] == "subscribe":
                self._unchecked.add(_job_id(message))
                self._wake_checker.set()
                continue
            self._heard_at_s = asyncio.get_running_loop().time()
            if message["type"] == "message":
                job_id = _job_id(message)
                if (answer := Answer.from_meta(message["data"], job_id)).is_terminal:
                    self._resolve(job_id, answer)

    async def _check(self) -> None:
        """Read the stored answers once after each confirmed subscription."""
        while True:
            await self._wake_checker.wait()
            self._wake_checker.clear()
            unchecked, self._unchecked = self._unchecked, set()
            for chunk in _chunks(job_id for job_id in unchecked if job_id in self._waiters):
                await self._look(chunk)
            await asyncio.sleep(GATHERING_S)

    async def _look_again(self) -> None:
        """Check periodically that the awaited jobs still exist; sooner for those that the broker has not confirmed."""
        loop = asyncio.get_running_loop()
        looked_s = loop.time()
        while True:
            await asyncio.sleep(min(LONGEST_PAUSE_S, LOOK_AGAIN_S))
            now_s = loop.time()
            is_time = now_s - looked_s >= LOOK_AGAIN_S
            looked_s = now_s if is_time else looked_s
            unseen = (job_id for job_id, since_s in self._unseen.items() if since_s < now_s - LONGEST_PAUSE_S)
            for chunk in _chunks(self._waiters if is_time else unseen):
                try:
                    fault = await self._look(chunk)
                except BrokerUnavailable as error:
                    fault = error
                if fault is not None:  # answers may still arrive from the other server
                    logger.debug("answers: could not look again: %s", fault)
                    break

    async def _look(self, job_ids: list[str]) -> BrokerUnavailable | None:
        """Read the jobs' state; returns the error if the broker is down."""
        seen = await self._link.run(glance(self._queue_prefix, job_ids))
        self._heard_at_s = now_s = asyncio.get_running_loop().time()
        for job_id, answer in seen.answers.items():
            self._unseen.pop(job_id, None)
            if answer.is_terminal or answer.state == "unknown":
                self._resolve(job_id, answer)
        if seen.fault is not None:
            # The broker may never confirm a job that is still unseen.
            for job_id in self._unseen.keys() & set(job_ids):
                if not seen.fault.may_pass:
                    self._resolve(job_id, seen.fault)
                elif now_s - self._unseen[job_id] > OUTAGE_S:
                    self._resolve(job_id, BrokerUnavailable(f"{_away()} {seen.fault}"))
        return seen.fault

    def _resolve(self, job_id: str, outcome: Answer | Exception) -> None:
        for arrival in self._waiters.get(job_id, ()):
            if arrival.done():
                continue
            if isinstance(outcome, Answer):
                arrival.set_result(outcome)
            else:
                arrival.set_exception(outcome)

    def _fail_all(self, sentence: str) -> None:
        for job_id in list(self._waiters):
            self._resolve(job_id, BrokerUnavailable(sentence))


def _away() -> str:
    return f"Redis was down for more than {OUTAGE_S:g} s while a result was awaited."


def _job_id(message: dict[str, Any]) -> str:
    channel: bytes = message["channel"]
    return channel.decode().removeprefix(_CHANNEL_PREFIX)


def _chunks(job_ids: Iterable[str]) -> list[list[str]]:
    everything = list(job_ids)
    return [everything[start : start + CHUNK] for start in range(0, len(everything), CHUNK)]
