"""Maintains the broker's database from one elected worker: serves priorities, and removes stale entries."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import uuid4

from producer.broker.scripting import eval_all
from producer.contract.names import counts_what_it_takes, place_key, rung_name, step_names
from worker.delivery import upkeep_scripts as scripts
from worker.delivery.duties import Duties
from worker.delivery.names import DeliveryKeys
from worker.delivery.outages import describe

logger = logging.getLogger(__name__)

#: The elected worker serves priorities at this interval, so a message with a priority waits for at most this long while
#: its queue is empty. To check all 60 keys costs Redis about ten microseconds.
STEP_S: Final = 0.05
#: At each interval at most this many messages of each queue move, 2,000 a second, which is far more than a worker
#: takes.
MAX_MOVED: Final = 100
#: A worker is elected for this long, and the elected one renews its term. The other workers try to be elected at this
#: interval, so that one of them soon replaces an elected worker that dies.
TERM_S: Final = 1.0
#: The elected worker does its other duties at this interval; none of them is urgent.
SWEEP_EVERY_S: Final = 2.5
#: A worker warns of at most this many lists that no worker serves, since each warning is a line in the log.
MAX_NAMED: Final = 20
#: One sweep checks about this many entries, so that sweeps cover a hundred thousand jobs within five minutes.
SWEPT: Final = 1_000
#: A postponed job resumes within a few seconds of its time; an entry that is overdue for longer than this belongs to no
#: message.
LONG_PAST_S: Final = 60.0
#: Within a day workers have taken all messages that an older worker requeued without counting them.
MIXED_MS: Final = 86_400_000
#: One search through the queues removes at most this many forgotten jobs.
MAX_FORGOTTEN: Final = 500
#: A request has an id of at most 128 bytes, a space, and a life of at most 128 characters, four bytes each.
MAX_REQUEST_BYTES: Final = 641
#: One script searches this many messages, or about this many bytes of them, in about a millisecond.
SEARCHED: Final = 400
SEARCHED_BYTES: Final = 1_000_000
#: One call of `Upkeep.forget` runs at most this many such scripts, so that the thread returns to the election and to
#: priorities in time.
MAX_SEARCHES: Final = 20
#: One script removes at most this many dead letters, since for each it searches all records and reads one message.
LETTERS: Final = 20


class Upkeep:
    """Maintains the broker's database in a thread while this worker is elected.

    Args:
        client: a Redis client for the broker's database, with timeouts.
        keys: the key names, including this worker's.
    """

    def __init__(self, client: Any, keys: DeliveryKeys) -> None:
        self._client = client
        self._keys = keys
        self._end = threading.Event()
        self._cursor = 0
        self._scanned = 0
        self._named: set[str] = set()
        self._swept_at_s = 0.0
        #: The current search for messages of forgotten jobs.
        self._search: Iterator[None] | None = None
        self._duties = Duties(client, keys)
        self._thread = threading.Thread(target=self._serve, name="upkeep", daemon=True)

    def start(self) -> None:
        """Start the thread, which tries to get this worker elected."""
        self._thread.start()

    def close(self, timeout_s: float = 1.0) -> None:
        """End the thread after its current duties and resign; another worker is elected within a second."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        try:
            self._client.eval(scripts.RESIGN, 1, self._keys.upkeep, self._keys.worker)
        except Exception as error:  # the term expires by itself
            logger.debug("could not resign: %s", type(error).__name__)

    def flag_older_workers(self) -> None:
        """Set a flag for clients if a listed worker of an older version takes messages without counting them."""
        names = [name.decode(errors="replace") for name in self._client.smembers(self._keys.workers)]
        if not all(map(counts_what_it_takes, names)):
            self._client.eval(scripts.SET, 1, self._keys.mixed, 1, MIXED_MS)

    def _serve(self) -> None:
        pause_s = 0.0
        while not self._end.wait(pause_s):
            try:
                pause_s = STEP_S if self._is_elected() else TERM_S
                if pause_s == STEP_S:
                    self._maintain()
                else:
                    self._search = None  # the newly elected worker starts the search from the beginning
                self._duties.report("maintain the queues", "")
            except Exception as error:  # the broker is unreachable; this thread must keep running
                self._duties.report("maintain the queues", describe(error))
                pause_s = TERM_S

    def _maintain(self) -> None:
        duty = self._duties.duty
        with duty("serve priorities"):
            self.move_steps()
        is_due = time.monotonic() - self._swept_at_s > SWEEP_EVERY_S
        if is_due:
            self._swept_at_s = time.monotonic()
            with duty("find workers of an older version"):
                self.flag_older_workers()
            with duty("remove the locations of lost jobs"):
                self.sweep()
            with duty("find lists that no worker serves"):
                self.warn_of_unserved_lists()
        if is_due or self._search:
            with duty("remove forgotten jobs"):
                self.forget()

    def _is_elected(self) -> bool:
        term_ms = int(TERM_S * 1000)
        return bool(self._client.eval(scripts.ELECT, 1, self._keys.upkeep, self._keys.worker, term_ms, "again"))

    def move_steps(self) -> None:
        """Move messages with a priority into their queue, for each queue that is empty."""
        names = [(queue, rung_name(queue), *step_names(queue)) for queue in self._keys.queues]
        eval_all(self._client, scripts.MOVE_STEPS, [(len(each), *each, MAX_MOVED) for each in names])

    def sweep(self) -> None:
        """Remove the locations of jobs that no longer exist, in one chunk of the hash of locations."""
        self._cursor, entries = self._client.hscan(self._keys.in_hand, self._cursor, count=SWEPT)
        workers = self._client.smembers(self._keys.workers)
        doubtful = [part for job_id, where in entries.items() if where not in workers for part in (job_id, where)]
        if doubtful:
            names = (self._keys.in_hand, self._keys.workers, *self._keys.counters, self._keys.mixed)
            self._client.eval(scripts.SWEEP, len(names), *names, LONG_PAST_S, MIXED_MS, *doubtful)

    def warn_of_unserved_lists(self) -> None:
        """Warn once about each list, among one chunk of the keys, that a client seems to send to by mistake.

        A client uses such a list if it sets kombu's option ``global_keyprefix`` or ``sep``, or a priority above 9.
        """
        pattern = f"*{self._keys.prefix}.*"
        self._scanned, found = self._client.scan(self._scanned, match=pattern, count=SWEPT, _type="list")
        for name in sorted({key.decode(errors="replace") for key in found} - {*self._keys.lists} - self._named):
            queue = next((queue for queue in self._keys.queues if queue in name), None)
            if queue is not None and len(self._named) < MAX_NAMED:
                self._named.add(name)
                logger.warning(
                    "no worker takes from the list %.100r: have its client send to %s, "
                    "without global_keyprefix, and with priorities 0 to 9 if any",
                    name,
                    queue,
                )

    def forget(self) -> bool:
        """Continue to remove messages and dead letters of forgotten jobs; return whether none are left.

        After an error the next call starts the search from the beginning.
        """
        search, self._search = self._search or self._searches(), None
        for _ in range(MAX_SEARCHES):
            if next(search, "done") == "done":
                return True
        self._search = search
        return False

    def _searches(self) -> Iterator[None]:
        """Remove the messages of forgotten jobs, chunk by chunk; yield after each chunk, so that the caller can pause.

        The search visits the keys in the order in which messages move (priorities, queues, rung messages), and each
        from its newest message on, so that no message moves into a part that was already searched.
        """
        limits = (MAX_FORGOTTEN, MAX_REQUEST_BYTES)
        while requests := self._client.eval(scripts.OLDEST_REQUESTS, 1, self._keys.forget, *limits):
            wanted = [part for pair in _split(requests) if all(pair) for part in pair]
            for key in self._keys_to_search() if wanted else ():
                script = scripts.REMOVE_POSTPONED if key == self._keys.postponed else scripts.REMOVE_WAITING
                begin = 0
                while begin >= 0:
                    part = (begin, SEARCHED, SEARCHED_BYTES, uuid4().hex, *wanted)
                    begin = int(self._client.eval(script, 2, key, self._keys.in_hand, *part))
                    if begin >= 0:
                        yield
            self._remove_letters(requests)
            with self._client.pipeline(transaction=False) as pipe:
                for request in requests[::-1]:
                    pipe.lrem(self._keys.forget, -1, request)
                pipe.execute()
            yield

    def _keys_to_search(self) -> Iterator[str]:
        for queue in self._keys.queues:
            yield from (*step_names(queue), queue, rung_name(queue))
        yield self._keys.postponed

    def _remove_letters(self, requests: Iterable[bytes]) -> None:
        names = (self._keys.dead_letters, self._keys.dead_letter_messages)
        forgotten = {job_id for job_id, _ in _split(requests)}
        found: list[tuple[str, bytes, str]] = []
        for record in self._client.lrange(names[0], 0, -1):
            try:
                fields = json.loads(record)
                if (job_id := fields["id"]) in forgotten:
                    found.append((place_key(self._keys.prefix, job_id), record, str(fields["letter"])))
            except (ValueError, LookupError, TypeError, RecursionError):
                continue  # another program wrote this record
        for begin in range(0, len(found), LETTERS):
            some = found[begin : begin + LETTERS]
            keys = (*names, *(place for place, _, _ in some))
            self._client.eval(
                scripts.REMOVE_LETTERS, len(keys), *keys, *(part for _, *letter in some for part in letter)
            )


def _split(requests: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Yield the id and the life in each request to forget a job."""
    for request in requests:
        job_id, _, life = request.decode(errors="replace").partition(" ")
        yield job_id, life
