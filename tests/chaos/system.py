"""The parts of a run: two Valkey servers, two web servers with pictures, workers and producers."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import redis

from producer.contract.names import in_flight_key, workers_key
from producer.embedded.valkey import RunningValkey
from tests.acceptance.origin import Origin
from tests.chaos import jobs
from tests.chaos.destruction import PREFIX, jobs_in
from tests.chaos.processes import ProducerPlace, WorkerPlace
from tests.chaos.proxy import Line, Switchboard
from tests.chaos.servers import Server

START_TIMEOUT_S = 60.0
LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class System:
    """The servers that workers and producers use; the exit stack ends all of them.

    Attributes:
        pictures, slow_pictures: two web servers, which can hold back all their responses.
    """

    folder: Path
    broker: Server
    results: Server
    switchboard: Switchboard
    pictures: Origin
    slow_pictures: Origin
    stack: contextlib.ExitStack

    @classmethod
    def start(cls, folder: Path, stack: contextlib.ExitStack) -> System:
        """Start the servers; raise `EmbeddedError` if one does not start."""
        broker, results = Server(folder / "broker"), Server(folder / "results")
        stack.enter_context(broker.valkey)
        stack.enter_context(results.valkey)
        switchboard = stack.enter_context(Switchboard())
        pictures, slow_pictures = stack.enter_context(Origin()), stack.enter_context(Origin())
        for origin in (pictures, slow_pictures):
            origin.pages.update(jobs.pages())
            origin.hold.set()
        return cls(folder, broker, results, switchboard, pictures, slow_pictures, stack)

    @property
    def executions(self) -> Path:
        """The file in which null workers record what they take and run."""
        return self.folder / "executions"

    @property
    def pictures_at(self) -> tuple[str, str]:
        """Return the base URLs of ordinary pictures and of the pictures of bulk messages that may stall."""
        return self.pictures.url("/held"), self.slow_pictures.url("/held")

    def held(self, process_id: int) -> set[str]:
        """Return the jobs that the worker with this process id holds; none if the broker does not answer."""
        try:
            with self.broker.connect() as broker:
                names: set[bytes] = broker.smembers(workers_key(PREFIX))
                own = [name.decode() for name in names if name.split(b"/")[-2] == b"%d" % process_id]
                return {job_id for name in own for job_id in jobs_in(broker.hvals(in_flight_key(PREFIX, name)))}
        except redis.RedisError:
            return set()

    def start_workers(self, count: int, *, forward_ms: float) -> list[WorkerPlace]:
        """Start all workers and wait until they take jobs; raise `TimeoutError` if they do not."""
        ports = (self.pictures.port, self.slow_pictures.port)
        settings = {
            "NAMESHOT_FETCH_ALLOW": ",".join(f"127.0.0.1/32:{port}" for port in ports),
            "NAMESHOT_MAX_BATCH": "8",
            # More than the default, so that a worker can hold many messages when it is killed.
            "NAMESHOT_CONCURRENCY": "48",
            "NULL_FORWARD_MS": str(forward_ms),
            "NULL_EXECUTIONS": str(self.executions),
        }
        workers: list[WorkerPlace] = []
        for number in range(count):
            line, results = self._lines()
            place = WorkerPlace(
                number, valkey=self.broker.valkey, line=line, results=results, settings=settings, folder=self.folder
            )
            workers.append(place)
            self.stack.callback(place.kill)
        _wait_until_ready(workers)
        return workers

    def start_producers(self, *, seed: int, total: int, lasts_s: float) -> list[ProducerPlace]:
        """Start all producers, which spread ``total`` jobs over ``lasts_s`` seconds from now."""
        arguments = {
            "--seed": seed,
            "--jobs": total,
            "--shares": len(jobs.SENDERS),
            "--first-at": time.time(),
            "--every-s": lasts_s / total,
            "--pictures": self.pictures_at[0],
            "--slow-pictures": self.pictures_at[1],
        }
        producers: list[ProducerPlace] = []
        for number, kind in enumerate(jobs.SENDERS):
            words = [str(word) for pair in {**arguments, "--share": number}.items() for word in pair]
            line, results = self._lines()
            place = ProducerPlace(
                number, kind, words, valkey=self.broker.valkey, line=line, results=results, folder=self.folder
            )
            producers.append(place)
            self.stack.callback(place.kill)
        return producers

    def _lines(self) -> tuple[Line, tuple[RunningValkey, Line]]:
        """Return the lines of one process to the broker and to the result backend."""
        broker, results = (self.switchboard.line(server.valkey.port) for server in (self.broker, self.results))
        return broker, (self.results.valkey, results)


def _wait_until_ready(workers: list[WorkerPlace]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not all(worker.is_ready for worker in workers):
        ended = [worker.name for worker in workers if not worker.is_running]
        if ended or time.monotonic() > deadline_s:
            raise TimeoutError(f"not every worker started; ended: {', '.join(ended) or 'none'}")
        time.sleep(LOOK_EVERY_S)
