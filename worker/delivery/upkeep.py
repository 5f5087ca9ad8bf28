"""What one worker of all does for the queues, whichever that is: serve priorities, and remove what is left behind."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final
from uuid import uuid4

from producer.contract import counts_what_it_takes, place_key, rung_name, step_names
from worker.delivery.names import DeliveryKeys
from worker.delivery.upkeep_scripts import (
    ELECT,
    MOVE_STEPS,
    REMOVE_LETTERS,
    REMOVE_POSTPONED,
    REMOVE_WAITING,
    SET,
    STAND_DOWN,
    SWEEP,
)

logger = logging.getLogger(__name__)

#: A message with a priority waits for so long at most while its queue is empty; one script for 60 keys costs Redis some
#: ten microseconds.
STEP_S: Final = 0.05
#: In one round: 2,000 a second, far above what one worker takes.
MAX_MOVED: Final = 100
#: A worker that was chosen and died is replaced after so long. The others look as often.
TERM_S: Final = 1.0
#: Between two rounds of removing what is left behind: nothing depends on it but what a status says.
SWEEP_EVERY_S: Final = 2.5
#: Lists of such names, each of which is a line in the log.
MAX_NAMED: Final = 20
#: Entries that one sweep looks at; of a hundred thousand jobs in hand each is looked at within five minutes.
SWEPT: Final = 1_000
#: A postponed job is resumed within a few seconds of its time; what is noted of one for longer is of no job.
LONG_PAST_S: Final = 60.0
#: A day: messages that were returned uncounted have been taken by then.
MIXED_MS: Final = 86_400_000
#: Jobs that are forgotten at once: one look through the queues is for all of them.
MAX_FORGOTTEN: Final = 500
#: What one script looks through, in messages and in bytes of them: about a millisecond.
SEARCHED: Final = 400
SEARCHED_BYTES: Final = 1_000_000
#: Scripts in a round, after which leases are seen to and priorities are served.
MAX_SEARCHES: Final = 20
#: Dead letters that one script removes. Each is looked for in all records, and its message read.
LETTERS: Final = 20


class Upkeep:
    """A thread that does this while it is the chosen one.

    Args:
        client: a redis client on the broker's database, with timeouts.
        keys: names, this worker's among them.
    """

    def __init__(self, client: Any, keys: DeliveryKeys) -> None:
        self._client = client
        self._keys = keys
        self._end = threading.Event()
        self._cursor = 0
        self._scanned = 0
        self._named: set[str] = set()
        self._swept_at_s = 0.0
        #: What is being forgotten, where is still to be looked for it, and from which message on in the first of these.
        self._forgotten: list[bytes] = []
        self._unsearched: list[str] = []
        self._begin = 0
        self._is_forgetting = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._serve, name="upkeep", daemon=True)

    def start(self) -> None:
        """Stand for election from now on."""
        self._thread.start()

    def close(self, timeout_s: float = 1.0) -> None:
        """End with the present round, and leave no trace; another worker is chosen within a second."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        try:
            self._client.eval(STAND_DOWN, 1, self._keys.upkeep, self._keys.worker)
        except Exception as error:  # it ends by itself
            logger.debug("could not stand down: %s", type(error).__name__)

    def note_older_workers(self) -> None:
        """Say so when a worker takes messages and counts none: clients then trust no count."""
        names = [name.decode(errors="replace") for name in self._client.smembers(self._keys.workers)]
        if not all(map(counts_what_it_takes, names)):
            self._client.eval(SET, 1, self._keys.mixed, 1, MIXED_MS)

    def _serve(self) -> None:
        pause_s = 0.0
        while not self._end.wait(pause_s):
            try:
                pause_s = STEP_S if self._is_chosen() else TERM_S
                if pause_s == STEP_S:
                    self.move_steps()
                    if time.monotonic() - self._swept_at_s > SWEEP_EVERY_S:
                        self._swept_at_s = time.monotonic()
                        self.note_older_workers()
                        self.sweep()
                        self.warn_of_unserved_lists()
                        self._is_forgetting = True
                    if self._is_forgetting:
                        self._is_forgetting = not self.forget()
                else:
                    self._forgotten = []  # the one that is chosen begins anew
                self._is_failing = False
            except Exception as error:  # the broker is away, or holds a key of a wrong type; this thread must go on
                if not self._is_failing:
                    logger.warning("cannot look after the queues: %s", type(error).__name__)
                self._is_failing = True
                pause_s = TERM_S

    def _is_chosen(self) -> bool:
        term_ms = int(TERM_S * 1000)
        return bool(self._client.eval(ELECT, 1, self._keys.upkeep, self._keys.worker, term_ms, "again"))

    def move_steps(self) -> None:
        """Queue what waits with a priority, in each queue that is empty."""
        with self._client.pipeline(transaction=False) as pipe:
            for queue in self._keys.queues:
                names = (queue, rung_name(queue), *step_names(queue))
                pipe.eval(MOVE_STEPS, len(names), *names, MAX_MOVED)
            pipe.execute()

    def sweep(self) -> None:
        """Remove what is noted of jobs that are nowhere any more, a part at a time."""
        self._cursor, entries = self._client.hscan(self._keys.in_hand, self._cursor, count=SWEPT)
        workers = self._client.smembers(self._keys.workers)
        doubtful = [part for job_id, where in entries.items() if where not in workers for part in (job_id, where)]
        if doubtful:
            names = (self._keys.in_hand, self._keys.workers, *self._keys.counters, self._keys.mixed)
            self._client.eval(SWEEP, len(names), *names, time.time() - LONG_PAST_S, MIXED_MS, *doubtful)

    def warn_of_unserved_lists(self) -> None:
        """Say once of each list that a client seems to send to by mistake that its messages are not taken.

        kombu puts a prefix before each queue where `global_keyprefix` is set, and a priority of ten or more, or of
        another `sep`, behind it. A part of the keys at a time.
        """
        pattern = f"*{self._keys.prefix}.*"
        self._scanned, found = self._client.scan(self._scanned, match=pattern, count=SWEPT, _type="list")
        served = {name for queue in self._keys.queues for name in (queue, rung_name(queue), *step_names(queue))}
        for name in sorted({key.decode(errors="replace") for key in found} - served - self._named):
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
        """Remove what is left of forgotten jobs, of many at a time; returns whether nothing is to be done now.

        Each place is looked through from its newest message on, so that none moves past where was looked already, and
        in the order in which messages move: priorities, queues, what has rung.
        """
        for _ in range(MAX_SEARCHES):
            if not self._forgotten:
                self._forgotten = self._client.lrange(self._keys.forget, -MAX_FORGOTTEN, -1)
                if not self._forgotten:
                    return True
                self._unsearched, self._begin = list(self._places()), 0
            if self._unsearched:
                self._search()
                continue
            self._remove_letters()
            with self._client.pipeline(transaction=False) as pipe:
                for request in self._forgotten[::-1]:
                    pipe.lrem(self._keys.forget, -1, request)
                pipe.execute()
            self._forgotten = []
        return False

    def _places(self) -> Iterator[str]:
        for queue in self._keys.queues:
            yield from (*step_names(queue), queue, rung_name(queue))
        yield self._keys.postponed

    def _search(self) -> None:
        """Look through a further part of one place, or through several that are empty."""
        wanted = [part for pair in _split(self._forgotten) if all(pair) for part in pair]
        if not wanted:
            self._unsearched = []
        while self._unsearched:
            place = self._unsearched[0]
            script = REMOVE_POSTPONED if place == self._keys.postponed else REMOVE_WAITING
            found = (self._begin, SEARCHED, SEARCHED_BYTES, uuid4().hex, *wanted)
            self._begin = int(self._client.eval(script, 2, place, self._keys.in_hand, *found))
            if self._begin >= 0:
                return
            self._unsearched.pop(0)
            self._begin = 0

    def _remove_letters(self) -> None:
        names = (self._keys.dead_letters, self._keys.dead_letter_messages)
        forgotten = {job_id for job_id, _ in _split(self._forgotten)}
        found: list[tuple[str, bytes, str]] = []
        for record in self._client.lrange(names[0], 0, -1):
            try:
                fields = json.loads(record)
                if (job_id := fields["id"]) in forgotten:
                    found.append((place_key(self._keys.prefix, job_id), record, str(fields["letter"])))
            except (ValueError, LookupError, TypeError, RecursionError):
                continue  # a stranger's
        for begin in range(0, len(found), LETTERS):
            some = found[begin : begin + LETTERS]
            keys = (*names, *(place for place, _, _ in some))
            self._client.eval(REMOVE_LETTERS, len(keys), *keys, *(part for _, *letter in some for part in letter))


def _split(requests: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """The ids and the lives of what is to be forgotten."""
    for request in requests:
        job_id, _, life = request.decode(errors="replace").partition(" ")
        yield job_id, life
