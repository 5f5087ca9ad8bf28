"""Makes the scheduled faults happen, undoes them, and puts a new process where one has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from producer.embedded import RunningValkey
from tests.chaos.faults import Fault, Kind
from tests.chaos.processes import Place, ProducerPlace, WorkerPlace

P = TypeVar("P", bound=Place)

#: A worker that was told to stop and runs on for so long will not stop by itself.
STOP_PATIENCE_S = 30.0
PRODUCER_FAULTS = (Kind.KILL_PRODUCER, Kind.CUT_PRODUCER)


class Injector:
    """`tick` it several times a second, from the main thread.

    Args:
        on_worker_killed: called with the process id and the time of each ``kill -9``, once the process has ended.

    Attributes:
        done: faults so far.
        stuck: workers that did not end after SIGTERM and were killed.
        unexpected: processes that ended without a fault, and how.
        disturbances: from and until when each fault of a worker or of Valkey lasted, seconds.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        *,
        valkey: RunningValkey,
        workers: Sequence[WorkerPlace],
        producers: Sequence[ProducerPlace],
        on_worker_killed: Callable[[int, float], None],
    ) -> None:
        self.done: Counter[Kind] = Counter()
        self.stuck = 0
        self.unexpected: list[str] = []
        self.disturbances: list[tuple[float, float]] = []
        self._coming = list(faults)
        self._valkey = valkey
        self._workers = workers
        self._producers = producers
        self._on_worker_killed = on_worker_killed
        #: What undoes a fault, and when.
        self._pending: list[tuple[float, Callable[[], None]]] = []
        self._stop_by_s: dict[str, float] = {}

    @property
    def is_quiet(self) -> bool:
        """Whether every fault has happened and is undone, and every producer is done."""
        undone = not self._coming and not self._pending and not any(worker.is_stopping for worker in self._workers)
        return undone and all(producer.is_done for producer in self._producers)

    def tick(self, now_s: float) -> None:
        """Do what is due ``now_s`` seconds after the run began."""
        due = [undo for at_s, undo in self._pending if at_s <= now_s]
        self._pending = [(at_s, undo) for at_s, undo in self._pending if at_s > now_s]
        for undo in due:
            undo()
        self._replace_ended(now_s)
        if all(producer.is_done for producer in self._producers):
            # Every job is accepted, and nobody is left to whom a producer's fault may happen.
            self._coming = [fault for fault in self._coming if fault.kind not in PRODUCER_FAULTS]
        for fault in [fault for fault in self._coming if fault.at_s <= now_s]:
            if self._happens(fault, now_s):
                self.done[fault.kind] += 1
                if fault.kind not in PRODUCER_FAULTS:
                    self.disturbances.append((now_s, now_s + fault.length_s))
                self._coming.remove(fault)

    def _replace_ended(self, now_s: float) -> None:
        for worker in self._workers:
            if worker.is_stopping and worker.is_running and now_s > self._stop_by_s[worker.name]:
                self.stuck += 1
                self._on_worker_killed(worker.kill(), now_s)
            if not worker.is_running:
                self._replace(worker, expected=worker.is_stopping)
        for producer in self._producers:
            if not producer.is_running and not producer.is_done:
                self._replace(producer, expected=False)

    def _replace(self, place: Place, *, expected: bool) -> None:
        if not expected:
            self.unexpected.append(f"{place.process.log.stem} {place.process.describe_exit()}")
        place.replace()

    def _happens(self, fault: Fault, now_s: float) -> bool:
        """Try one fault; False when there is nobody now to whom it may happen."""
        match fault.kind:
            case Kind.RESTART_VALKEY:
                if not self._valkey.process.is_running():
                    return False
                self._valkey.stop()
                self._pending.append((now_s + fault.length_s, self._valkey.restart))
                return True
            case kind if kind in PRODUCER_FAULTS:
                undisturbed = [place for place in self._producers if place.is_running and not place.line.is_cut]
                producer = _drawn(fault, undisturbed)
                return producer is not None and self._disturb_producer(fault, producer, now_s)
            case _:
                worker = _drawn(fault, [worker for worker in self._workers if worker.is_ready])
                return worker is not None and self._disturb_worker(fault, worker, now_s)

    def _disturb_producer(self, fault: Fault, producer: ProducerPlace, now_s: float) -> bool:
        if fault.kind is Kind.CUT_PRODUCER:
            self._cut(producer, now_s + fault.length_s)
        else:
            producer.kill()
            if not producer.is_done:  # it may have finished in the same moment
                producer.replace()
        return True

    def _disturb_worker(self, fault: Fault, worker: WorkerPlace, now_s: float) -> bool:
        match fault.kind:
            case Kind.KILL_WORKER:
                self._on_worker_killed(worker.kill(), now_s)
                worker.replace()
            case Kind.TERMINATE_WORKER:
                worker.terminate()
                self._stop_by_s[worker.name] = now_s + STOP_PATIENCE_S
            case Kind.FREEZE_WORKER:
                worker.freeze()
                self._pending.append((now_s + fault.length_s, worker.thaw))
            case _:
                self._cut(worker, now_s + fault.length_s)
        return True

    def _cut(self, place: Place, until_s: float) -> None:
        place.line.cut()
        self._pending.append((until_s, place.line.restore))


def _drawn(fault: Fault, places: Sequence[P]) -> P | None:
    return places[int(fault.draw * len(places))] if places else None
