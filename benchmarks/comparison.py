"""Measures limits, nameshot and peers in turns, round by round, so that other work on the machine affects all alike."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

from benchmarks.labels import Labels, images_per_message
from benchmarks.limit import BareModel, Rate, Way
from benchmarks.load import Run
from benchmarks.peers.contenders import NAMESHOT, Contender
from benchmarks.peers.reference import COMPARED, Answer, compare
from benchmarks.plan import Done, Plan, Round, Row, Sample
from benchmarks.session import CLIENTS, Place, Session, session, why
from benchmarks.system import TIMEOUT_S, Url, bulk_images, single_jobs
from producer import Client

#: The offered loads, as shares of the bare loop's rate; jobs arrive as a Poisson process, independent of the answers.
OFFERED = (0.25, 0.5, 0.8)
#: Above this share of a contender's rate, its latency is not measured, because its backlog would only grow.
BEARABLE = 0.9
#: Jobs are submitted in multiples of two batches on each of two cores; a round with fewer would mainly measure how a
#: run begins and ends.
JOBS_UNIT = 32
#: Each client has at least one job, so that all of them work at once.
PEER_JOBS_UNIT = CLIENTS
#: Two batches are enough to check whether answers are right.
VERIFIED_JOBS = 16
#: The fewest jobs with labels of their own (a hundred labels take most of a second). In bulk there are at least two
#: messages, because the images of one message wait for its labels.
LEAST_DIFFERENT = 4
#: A job with at least this many labels of its own takes seconds, so such jobs are measured in the first round only.
EXPENSIVE_LABELS = 500
LONE_JOBS = 10
#: The pause before each measurement, so that no work left by the previous one (PyTorch's spinning threads, a queue that
#: is cleaned up) runs beside it.
PAUSE_S = 0.1
SEED = 20

#: A function that submits this many jobs by a client and returns how the run went.
Ask = Callable[[Client, Url, int, Labels], Run]


class Comparison:
    """Measures everything, and gathers the results as data in its attributes.

    Args:
        expected: the pipeline's answers by label count; the answers of all contenders are compared with them.
        announce: called with a description of what is measured next.

    Attributes:
        samples: each has the figures of one contender or limit in one round.
        latencies_ms: the latencies by name and by offered share of the loop's rate.
        lone_ms: the latencies of jobs that are alone. `lone_stages_ms` has the stages in their results; `direct_ms` has
            the times of direct calls of the model with the same images, by share of the cores.
        contenders: what concerns a whole contender, by name: its start, its memory, or its error.
    """

    def __init__(
        self,
        plan: Plan,
        bare: BareModel,
        place: Place,
        expected: Mapping[int, Sequence[Answer]],
        announce: Callable[[str], None],
    ) -> None:
        self._plan, self._bare, self._place, self._expected, self._announce = plan, bare, place, expected, announce
        self.samples: list[Sample] = []
        self.latencies_ms: defaultdict[tuple[str, float], list[float]] = defaultdict(list)
        self.contenders: defaultdict[str, Sample] = defaultdict(dict)
        self.lone_ms: list[float] = []
        self.lone_stages_ms: list[dict[str, float | None]] = []
        self.direct_ms: defaultdict[int, list[float]] = defaultdict(list)
        announce("the limits' best ways")
        try_s = plan.window_s / 4
        alone = [
            way for way in bare.ways if way.ahead == (way.parallel == 1)
        ]  # the forward pass decodes nothing, so one way per number of parallel batches is enough
        self.forward_way, _ = _best({way: bare.forward(way, try_s).per_s for way in alone})
        self.loop_way, self.loop_per_s = _best({way: bare.loop(way, try_s, self._usual).per_s for way in bare.ways})
        for count, answers in expected.items():
            for number in range(COMPARED):
                compare(bare.answer(number, Labels(count).next_set()), answers[number])

    @property
    def _usual(self) -> Labels:
        """The labels of all measurements that use only one set of labels."""
        return Labels(self._plan.same[0])

    def measure(self, peers: Sequence[Contender], save: Callable[[], object]) -> None:
        """Measure everything; record why a peer fails, and go on with the next. ``save`` is called after each part."""
        first, *_ = self._plan.peers_labels
        with session(NAMESHOT, self._place, Labels(first).next_set(), self._announce) as ours:
            self._begin(NAMESHOT.name, ours)
            for count in self._plan.same:  # the worker caches these labels before their rows begin
                _client_of(ours).classify(self._place.url(0), Labels(count).next_set(), timeout=TIMEOUT_S)
            for number in range(self._plan.rounds):
                self._announce(f"round {number + 1} of {self._plan.rounds}")
                self._round(ours, Round(number))
            save()
            for peer in peers:
                self.contenders[peer.name]["what"] = peer.what
                try:
                    with session(peer, self._place, Labels(first).next_set(), self._announce) as theirs:
                        self._begin(peer.name, theirs)
                        self._beside(peer.name, theirs, ours)
                        self.contenders[peer.name]["memory_mb"] = theirs.memory_mb()
                except Exception as error:  # a peer may fail in any way, which is then its row
                    self.contenders[peer.name]["error"] = why(error)
                save()
            self.contenders[NAMESHOT.name]["memory_mb"] = ours.memory_mb()

    def _begin(self, name: str, contender: Session) -> None:
        self.contenders[name]["start_s"] = round(contender.start_s, 1)
        for count, answers in self._expected.items():
            contender.verify(Labels(count).next_set(), answers, VERIFIED_JOBS)

    def _round(self, ours: Session, at: Round) -> None:
        """Measure nameshot, with the limits before and after each load."""
        plan = self._plan
        for count in rotated(plan.same, at.number):
            # These take twice as long, because in bulk a queue fills and empties, which the limits do not have.
            self._within_limits(Labels(count), {"single": single_jobs, "bulk": bulk_images}, ours, at, 2)
        for count in plan.different:
            if at.number and count >= EXPENSIVE_LABELS:
                continue
            # The images of a bulk message share its labels, which is less work, so bulk has a limit of its own.
            self._within_limits(Labels(count, 1), {"single": single_jobs}, ours, at, 0.5)
            self._within_limits(Labels(count, images_per_message(count)), {"bulk": bulk_images}, ours, at, 0.5)
        self._lone(ours)
        for share in OFFERED:
            self._offer(NAMESHOT.name, ours, share, at.number)

    def _beside(self, name: str, theirs: Session, ours: Session) -> None:
        """Measure a peer beside nameshot and the limits; all clients wait for each answer before the next job."""
        theirs_per_s: list[float] = []
        for number in range(self._plan.rounds):
            at = Round(number, beside=name)
            forward = self._forward(at)
            for count in self._plan.peers_labels:
                self._announce(f"{name}: {count} labels, round {number + 1}")
                labels = Labels(count)
                loop = self._loop(labels, at)
                rates = {}
                for who, contender, unit in ((NAMESHOT.name, ours, JOBS_UNIT), (name, theirs, PEER_JOBS_UNIT)):
                    expected_per_s = loop.per_s if contender is ours else self._rate_so_far(name, count)
                    jobs = jobs_for(self._plan.window_s / 2, expected_per_s, unit)
                    work = partial(contender.closed_loop_per_s, labels.next_set(), jobs)
                    row = Row(who, "clients", labels)
                    done = self._timed(contender, jobs, work)
                    self._keep(row, at, done, forward.per_s, loop.per_s)
                    rates[who] = done.per_s
                self.samples[-1]["ahead"] = round(rates[NAMESHOT.name] / rates[name], 3)
                if count == self._usual.count:
                    theirs_per_s.append(rates[name])
        for share in OFFERED:
            if theirs_per_s and share * self.loop_per_s < BEARABLE * statistics.median(theirs_per_s):
                self._offer(name, theirs, share, 0)

    def _rate_so_far(self, name: str, labels: int) -> float:
        """Return a peer's last rate with this many labels; 0 if it is unknown, and the peer gets the fewest jobs."""
        rates = [one["jobs_per_s"] for one in self.samples if (one["name"], one["labels"]) == (name, labels)]
        return float(rates[-1]) if rates else 0.0

    def _forward(self, at: Round) -> Rate:
        return self._limit(Row("forward", "limit", None), at, partial(self._bare.forward, self.forward_way))

    def _loop(self, labels: Labels, at: Round) -> Rate:
        measure = partial(self._bare.loop, self.loop_way, labels=labels)
        return self._limit(Row("loop", "limit", labels), at, measure)

    def _limit(self, row: Row, at: Round, measure: Callable[[float], Rate]) -> Rate:
        time.sleep(PAUSE_S)
        rate = measure(self._plan.window_s / 3)
        figures = {"jobs_per_s": round(rate.per_s, 3), "cpu_ms": round(rate.cpu_ms, 1)}
        self.samples.append({**row.data(), **at.data(), **figures})
        return rate

    def _within_limits(
        self, labels: Labels, loads: Mapping[str, Ask], ours: Session, at: Round, windows: float
    ) -> None:
        """Measure loads, with the loop before, between and after them, because a machine's speed drifts.

        Each load is compared with the mean of the loops before and after it.
        """
        client = _client_of(ours)
        forward, loop = self._forward(at), self._loop(labels, at)
        unit = max(LEAST_DIFFERENT, 2 * labels.shared_by) if labels.shared_by else JOBS_UNIT
        for load, ask in loads.items():
            jobs = jobs_for(windows * self._plan.window_s, loop.per_s, unit)
            done = self._timed(ours, jobs, partial(_asked, ask, client, self._place.url, jobs, labels))
            before, loop = loop, self._loop(labels, at)
            beside_per_s = statistics.fmean((before.per_s, loop.per_s))
            self._keep(Row(NAMESHOT.name, load, labels), at, done, forward.per_s, beside_per_s)

    def _timed(self, contender: Session, jobs: int, work: Callable[[], float]) -> Done:
        """Call ``work``, which returns its jobs per second, and return the rate with the CPU time."""
        time.sleep(PAUSE_S)
        before_s = contender.cpu_s()
        per_s = work()
        return Done(jobs, per_s, (contender.cpu_s() - before_s) / jobs * 1000)

    def _keep(self, row: Row, at: Round, done: Done, forward_per_s: float, loop_per_s: float) -> None:
        figures = {
            "jobs": done.jobs,
            "jobs_per_s": round(done.per_s, 3),
            "cpu_ms": round(done.cpu_ms, 1),
            "of_forward": round(done.per_s / forward_per_s, 4),
            "of_loop": round(done.per_s / loop_per_s, 4),
        }
        self.samples.append({**row.data(), **at.data(), **figures})

    def _lone(self, ours: Session) -> None:
        client, labels = _client_of(ours), self._usual.next_set()
        for number in range(LONE_JOBS):
            for share in self._bare.shares:
                time.sleep(PAUSE_S)
                started = time.perf_counter()
                self._bare.answer(number, labels, share)
                self.direct_ms[share].append((time.perf_counter() - started) * 1000)
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            result = client.classify(self._place.url(number), labels, timeout=TIMEOUT_S)
            self.lone_ms.append((time.perf_counter() - started) * 1000)
            self.lone_stages_ms.append(asdict(result.timings_ms))

    def _offer(self, name: str, contender: Session, share: float, number: int) -> None:
        self._announce(f"{name}: {share:.0%} of the loop's rate offered")
        rate_per_s = share * self.loop_per_s
        latencies_s = contender.open_loop(self._usual.next_set(), rate_per_s, self._plan.offered_s, SEED + number)
        self.latencies_ms[name, share] += [one * 1000 for one in latencies_s]


def _client_of(ours: Session) -> Client:
    if ours.running.client is None:
        raise ValueError("this session has no client of nameshot")
    return ours.running.client


def _asked(ask: Ask, client: Client, url: Url, jobs: int, labels: Labels) -> float:
    """Return jobs per second: the slope for single jobs, but the whole run's rate in bulk or where jobs are few."""
    run = ask(client, url, jobs, labels)
    return run.steady_per_s if ask is single_jobs and labels.shared_by is None else run.per_s


def rotated(counts: Sequence[int], by: int) -> list[int]:
    """Return the counts in another order each round, so that none always follows the same measurement."""
    first = by % len(counts)
    return [*counts[first:], *counts[:first]]


def jobs_for(seconds: float, per_s: float, unit: int) -> int:
    """Return the number of jobs that take about this long at this rate: a positive multiple of the unit."""
    return unit * max(1, round(seconds * per_s / unit))


def _best(rates: Mapping[Way, float]) -> tuple[Way, float]:
    way = max(rates, key=rates.__getitem__)
    return way, rates[way]
