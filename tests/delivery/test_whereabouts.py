"""The scripts' records tell a job that waits or runs from one that is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from producer import Client
from producer.contract.names import in_hand_key, rung_name, taken_name
from tests.delivery.moves import FAR_AHEAD_S, QUEUE, acknowledge, give_back, postpone, reclaim, resume, take
from tests.valkey_server import ValkeyServer
from worker.delivery.names import DeliveryKeys
from worker.delivery.scripts import HAND_ON

WORKERS = [DeliveryKeys("nameshot", f"place/{number}/n0") for number in range(3)]
IN_HAND = in_hand_key("nameshot")

KINDS = ["submit", "wake", "hand_on", "take", "take", "finish", "give_back", "die", "leave", "postpone", "resume"]
#: Sequences of events, each with a number that selects its worker or message.
EVENTS = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 11)), max_size=60)


def message(job_id: str) -> bytes:
    return json.dumps({"headers": {"id": job_id}}).encode()


@dataclass
class System:
    """A model of some jobs and of the workers that take them from one queue."""

    broker: redis.Redis
    submitted: dict[str, int] = field(default_factory=dict)
    held: list[tuple[DeliveryKeys, bytes, str]] = field(default_factory=list)
    postponed: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    takes: int = 0

    def happen(self, event: str, which: int) -> None:
        worker = WORKERS[which % len(WORKERS)]
        match event:
            case "submit":
                job_id = f"job-{len(self.submitted)}"
                taken = int(self.broker.get(taken_name(QUEUE)) or 0)
                waiting = self.broker.lpush(QUEUE, message(job_id)) + self.broker.llen(rung_name(QUEUE))
                self.submitted[job_id] = taken + waiting
            case "wake":
                self.broker.lmove(QUEUE, rung_name(QUEUE), "RIGHT", "LEFT")
            case "hand_on":
                self.broker.eval(HAND_ON, 2, rung_name(QUEUE), QUEUE)
            case "take":
                self.broker.set(worker.lease, 1)
                self.broker.sadd(worker.workers, worker.worker)
                self.takes += 1
                if found := take(self.broker, f"tag-{self.takes}", (QUEUE,), worker):
                    self.held.append((worker, found[5], json.loads(found[1])["headers"]["id"]))
            case "die" | "leave":
                reclaim(self.broker, "dead" if event == "die" else "leaving", worker)
                self.held = [each for each in self.held if each[0] is not worker]
            case "resume":
                resume(self.broker)
                self.postponed = [job_id for job_id in self.postponed if self.where(job_id)[0] != "returned"]
            case _ if self.held:
                worker, tag, job_id = self.held.pop(which % len(self.held))
                match event:
                    case "finish":
                        assert acknowledge(self.broker, tag, worker) == 1
                        self.finished.append(job_id)
                    case "give_back":
                        assert give_back(self.broker, tag, worker) == 1
                    case "postpone":
                        assert postpone(self.broker, tag, which + (FAR_AHEAD_S if which % 2 else 0), worker) == 1
                        self.postponed.append(job_id)

    def where(self, job_id: str) -> list[str]:
        """Return the words of a job's record among those in hand; empty without a record."""
        noted = self.broker.hget(IN_HAND, job_id)
        return noted.decode().split() if isinstance(noted, bytes) else []

    def number(self, job_id: str) -> int:
        """Return the number of a waiting job: once the queue's counter reaches it, the job has been taken."""
        where = self.where(job_id)
        return int(where[2]) if where[:1] == ["returned"] else self.submitted[job_id]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    with ValkeyServer(tmp_path_factory.mktemp("whereabouts")) as server, server.connect() as broker:
        yield broker


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(events=[("submit", 0), ("submit", 0), ("wake", 0), ("wake", 0), ("hand_on", 0), ("take", 0)])
@given(events=EVENTS)
def test_records_always_show_whether_a_job_waits_is_in_hand_is_postponed_or_is_done(
    shared: redis.Redis, events: list[tuple[str, int]]
) -> None:
    shared.flushdb()
    system = System(shared)
    for event, which in events:
        system.happen(event, which)

        taken = int(shared.get(taken_name(QUEUE)) or 0)
        waiting = shared.lrange(QUEUE, 0, -1) + shared.lrange(rung_name(QUEUE), 0, -1)
        for raw in waiting:
            job_id = json.loads(raw)["headers"]["id"]
            assert system.number(job_id) > taken
            assert system.where(job_id)[:2] in ([], ["returned", "default"])
        for worker, _, job_id in system.held:
            assert system.where(job_id) == [worker.worker]
        for job_id in system.postponed:
            assert system.where(job_id)[0] == "postponed"
        for job_id in system.finished:
            assert not shared.hexists(IN_HAND, job_id)
        assert len(waiting) + len(system.held) + len(system.postponed) + len(system.finished) == len(system.submitted)


@pytest.mark.parametrize("end", ["acknowledged", "given back"])
def test_the_end_of_a_forgotten_message_does_not_remove_the_record_of_its_id_s_new_message(
    own_valkey: ValkeyServer, end: str
) -> None:
    worker = WORKERS[0]
    url = "http://images.example/owl.png"
    with (
        own_valkey.connect() as broker,
        Client(own_valkey.broker_url, own_valkey.result_backend) as client,
    ):
        broker.set(worker.lease, 1)
        broker.sadd(worker.workers, worker.worker)
        client.submit(url, ["owl"], job_id="job")
        first = take(broker, "first", (QUEUE,), worker)
        assert client.cancel("job")
        assert client.forget("job")
        client.submit(url, ["fox"], job_id="job")
        take(broker, "second", (QUEUE,), worker)
        if end == "acknowledged":
            assert acknowledge(broker, first[5], worker) == 1
        else:
            assert give_back(broker, first[5], worker) == 1
            take(broker, "first again", (QUEUE,), WORKERS[1])

        assert client.job("job").status() == "queued"
