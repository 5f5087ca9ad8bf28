"""Makes the scheduled faults happen, undoes them, and replaces processes that have ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from tests.acceptance.origin import Origin
from tests.chaos.destruction import Destroyed, flush_broker, flush_results, purge
from tests.chaos.faults import Fault, Kind
from tests.chaos.processes import Ended, Place, ProducerPlace, WorkerPlace
from tests.chaos.servers import Server, Undo

P = TypeVar("P", bound=Place)

#: A worker that still runs this long after SIGTERM counts as stuck, and is killed.
STOP_PATIENCE_S = 30.0
#: The time between two moments at which a server ends all its connections.
STORM_EVERY_S = 0.4
FEW_S = 3.0
PRODUCER_FAULTS = (Kind.KILL_PRODUCER, Kind.CUT_PRODUCER)
#: After this time another worker may have taken over what a silent one held, which counts as a death for the jobs.
LEASE_MAY_END_S = 8.0
#: These faults have no effect once every job is accepted; then a worker is cut off from Valkey instead.
WHILE_JOBS_COME = (*PRODUCER_FAULTS, Kind.PURGE, Kind.KILL_LADEN_WORKER, Kind.KILL_ALL_WORKERS)
#: How long no worker runs: longer than the leases of nine seconds, so that the backlog counts what the dead workers
#: hold a few times.
ALL_AWAY_S = 13.0


class Injector:
    """The main thread calls `tick` several times a second.

    Args:
        broker, results: the servers.
        pictures, slow_pictures: the servers of all pictures but the last of each bulk message, and of those last ones;
            a fault can make a server stall.
        held: returns the jobs that the worker with a process id holds.
        on_worker_lost: called with the jobs in hand of a worker that is about to die, or to be silent for so long that
            it counts as dead.
        on_worker_killed: called with the process id and the time of each ``kill -9``, once the process has ended.
        on_destroyed: called with what a purge or FLUSHALL has destroyed, and the time.

    Attributes:
        done: how many faults of each kind have happened.
        stuck: workers that did not end after SIGTERM and were killed.
        unexpected: processes that ended without a fault, and how.
        disturbances: when each fault of a worker or of a server began and ended, in seconds.
        most_in_hand: the most messages that a worker held when it was killed.
    """

    def __init__(
        self,
        faults: Sequence[Fault],
        *,
        broker: Server,
        results: Server,
        workers: Sequence[WorkerPlace],
        producers: Sequence[ProducerPlace],
        pictures: Origin,
        slow_pictures: Origin,
        held: Callable[[int], set[str]],
        on_worker_lost: Callable[[set[str]], None],
        on_worker_killed: Callable[[int, float], None],
        on_destroyed: Callable[[list[Destroyed], float], None],
    ) -> None:
        self.done: Counter[Kind] = Counter()
        self.stuck = 0
        self.unexpected: list[Ended] = []
        self.disturbances: list[tuple[float, float]] = []
        self.most_in_hand = 0
        self._coming = list(faults)
        self._broker = broker
        self._results = results
        self._workers = workers
        self._producers = producers
        self._pictures = pictures
        self._slow_pictures = slow_pictures
        self._held = held
        self._on_worker_lost = on_worker_lost
        self._on_worker_killed = on_worker_killed
        self._on_destroyed = on_destroyed
        self._now_s = 0.0
        #: Calls that undo or continue a fault, with the times at which they are due.
        self._pending: list[tuple[float, Undo]] = []
        self._stop_by_s: dict[str, float] = {}
        self._all_are_away = False

    @property
    def is_quiet(self) -> bool:
        """Whether every fault has happened and is undone, and every producer has submitted all its jobs."""
        undone = not self._coming and not self._pending and not any(worker.is_stopping for worker in self._workers)
        return undone and all(producer.is_done for producer in self._producers)

    def tick(self, now_s: float) -> None:
        """Do what is due ``now_s`` seconds after the run began."""
        self._now_s = now_s
        due = [undo for at_s, undo in self._pending if at_s <= now_s]
        self._pending = [(at_s, undo) for at_s, undo in self._pending if at_s > now_s]
        for undo in due:
            undo()
        self._replace_ended()
        if all(producer.is_done for producer in self._producers):
            self._coming = [
                replace(fault, kind=Kind.CUT_WORKER, length_s=FEW_S) if fault.kind in WHILE_JOBS_COME else fault
                for fault in self._coming
            ]
        for fault in [fault for fault in self._coming if fault.at_s <= now_s]:
            if self._happens(fault):
                self.done[fault.kind] += 1
                if fault.kind not in PRODUCER_FAULTS:
                    self.disturbances.append((now_s, now_s + fault.length_s))
                self._coming.remove(fault)

    def _replace_ended(self) -> None:
        for worker in self._workers:
            if worker.is_stopping and worker.is_running and self._now_s > self._stop_by_s[worker.name]:
                self.stuck += 1
                self._kill(worker)
            if not worker.is_running and not self._all_are_away:
                self._replace(worker, expected=worker.is_stopping)
        for producer in self._producers:
            if not producer.is_running and not producer.is_done:
                self._replace(producer, expected=False)

    def _replace(self, place: Place, *, expected: bool) -> None:
        if not expected:
            self.unexpected.append(place.ended())
        place.replace()

    def _kill(self, worker: WorkerPlace) -> None:
        held = self._lost(worker)
        self.most_in_hand = max(self.most_in_hand, len(held))
        self._on_worker_killed(worker.kill(), self._now_s)

    def _lost(self, worker: WorkerPlace) -> set[str]:
        held = self._held(worker.process.pid) if self._broker.is_reachable else set()
        self._on_worker_lost(held)
        return held

    def _happens(self, fault: Fault) -> bool:
        """Try to make a fault happen; return False if no process or server qualifies now."""
        if fault.kind in PRODUCER_FAULTS:
            return self._disturb_producer(fault)
        match fault.kind:
            case Kind.RESTART_BROKER | Kind.FREEZE_BROKER | Kind.FILL_BROKER | Kind.REFUSE_BROKER | Kind.STORM_BROKER:
                return self._disturb_server(fault, self._broker)
            case (
                Kind.RESTART_RESULTS
                | Kind.FREEZE_RESULTS
                | Kind.FILL_RESULTS
                | Kind.REFUSE_RESULTS
                | Kind.STORM_RESULTS
            ):
                return self._disturb_server(fault, self._results)
            case Kind.PURGE:
                return self._purge(fault)
            case Kind.FLUSH_BROKER | Kind.FLUSH_RESULTS:
                return self._flush(fault)
            case Kind.STALL_BULK:
                return self._stall(fault, self._slow_pictures, then=lambda: True)
            case Kind.KILL_LADEN_WORKER:
                return self._stall(fault, self._pictures, then=self._kill_most_laden)
            case Kind.KILL_ALL_WORKERS:
                return self._stall(fault, self._pictures, then=self._kill_all)
            case _:
                worker = _drawn(fault, self._ready)
                return worker is not None and self._disturb_worker(fault, worker)

    @property
    def _ready(self) -> list[WorkerPlace]:
        return [worker for worker in self._workers if worker.is_ready]

    def _disturb_producer(self, fault: Fault) -> bool:
        undisturbed = [place for place in self._producers if place.is_running and not place.is_cut]
        if (producer := _drawn(fault, undisturbed)) is None:
            return False
        if fault.kind is Kind.CUT_PRODUCER:
            producer.cut()
            self._later(fault.length_s, producer.restore)
        else:
            producer.kill()
            if not producer.is_done:  # it may have finished just before the kill
                producer.replace()
        return True

    def _disturb_worker(self, fault: Fault, worker: WorkerPlace) -> bool:
        match fault.kind:
            case Kind.KILL_WORKER:
                self._kill(worker)
                worker.replace()
            case Kind.TERMINATE_WORKER:
                worker.terminate()
                self._stop_by_s[worker.name] = self._now_s + STOP_PATIENCE_S
            case Kind.FREEZE_WORKER:
                if fault.length_s > LEASE_MAY_END_S:
                    self._lost(worker)
                worker.freeze()
                self._later(fault.length_s, worker.thaw)
            case _:
                if fault.length_s > LEASE_MAY_END_S:
                    self._lost(worker)
                # The draw selects whether the worker loses both servers or one of them.
                worker.cut(broker=fault.draw < 2 / 3, results=fault.draw > 1 / 3)
                self._later(fault.length_s, worker.restore)
        return True

    def _disturb_server(self, fault: Fault, server: Server) -> bool:
        if server.is_disturbed:
            return False
        match fault.kind:
            case Kind.RESTART_BROKER | Kind.RESTART_RESULTS:
                undo = server.leave()
            case Kind.FREEZE_BROKER | Kind.FREEZE_RESULTS:
                undo = server.freeze()
            case Kind.FILL_BROKER | Kind.FILL_RESULTS:
                undo = server.fill()
            case Kind.REFUSE_BROKER | Kind.REFUSE_RESULTS:
                undo = server.refuse(fault.draw)
            case _:
                undo = self._storm(fault, server)
        self._occupy(server, fault.length_s, undo)
        return True

    def _storm(self, fault: Fault, server: Server) -> Undo:
        for number in range(int(fault.length_s / STORM_EVERY_S)):
            self._later(number * STORM_EVERY_S, server.end_connections)
        return server.end_connections

    def _occupy(self, server: Server, length_s: float, undo: Undo) -> None:
        server.is_disturbed = True

        def over() -> None:
            undo()
            server.is_disturbed = False

        self._later(length_s, over)

    def _purge(self, fault: Fault) -> bool:
        """Suspend every ready worker for less than a lease, so that messages wait, and then purge the messages."""
        workers = self._ready
        if self._broker.is_disturbed or not workers:
            return False
        for worker in workers:
            worker.freeze()

        def undo() -> None:
            self._on_destroyed(purge(self._broker), self._now_s)
            for worker in workers:
                worker.thaw()

        self._occupy(self._broker, fault.length_s, undo)
        return True

    def _flush(self, fault: Fault) -> bool:
        server, flush = (
            (self._broker, flush_broker) if fault.kind is Kind.FLUSH_BROKER else (self._results, flush_results)
        )
        if server.is_disturbed:
            return False
        self._on_destroyed(flush(server), self._now_s)
        return True

    def _stall(self, fault: Fault, pictures: Origin, *, then: Callable[[], bool]) -> bool:
        if not pictures.hold.is_set():
            return False
        pictures.hold_back()

        def release() -> None:
            if then():
                pictures.hold.set()
            else:
                self._later(0.0, release)

        self._later(fault.length_s, release)
        return True

    def _kill_most_laden(self) -> bool:
        if not self._broker.is_reachable or not (workers := self._ready):
            return False
        laden = max(workers, key=lambda worker: len(self._held(worker.process.pid)))
        self._kill(laden)
        laden.replace()
        return True

    def _kill_all(self) -> bool:
        """Kill all workers while they hold messages, and start none for a while."""
        if self._broker.is_disturbed or not self._ready:
            return False
        for worker in self._workers:
            self._kill(worker)
        self.disturbances.append((self._now_s - FEW_S, self._now_s + ALL_AWAY_S))
        self._all_are_away = True

        def back() -> None:
            self._all_are_away = False
            for worker in self._workers:
                worker.replace()

        self._later(ALL_AWAY_S, back)
        return True

    def _later(self, delay_s: float, what: Undo) -> None:
        self._pending.append((self._now_s + delay_s, what))


def _drawn(fault: Fault, places: Sequence[P]) -> P | None:
    return places[int(fault.draw * len(places))] if places else None
