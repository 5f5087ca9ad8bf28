"""A worker's line about a job's outcome names the HTTP request that submitted the job, as the message's header does."""

from __future__ import annotations

import pytest
import redis

from producer import Client, Job, JobFailed
from producer.contract.names import queue_name
from tests.acceptance.origin import Origin
from tests.cli.command import Home
from tests.delivery.conftest import StartWorker
from tests.delivery.test_retries import QUICK, Ailing, allow
from tests.eventually import eventually
from tests.jobs.test_messages import headers, message
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "bear"]
TIMEOUT_S = 60


def send(
    broker: redis.Redis,
    job_id: str,
    request_id: object,
    *,
    task: str = "nameshot.classify",
    retries: int = 0,
    **kwargs: object,
) -> None:
    """Send a job that an HTTP request with this id submitted."""
    own = headers(id=job_id, task=task, nameshot_request_id=request_id, nameshot_retries=retries)
    broker.lpush(queue_name("nameshot", "default"), message(own, [[], kwargs, {}]))


def ended(client: Client, job_id: str) -> Job:
    """Return a job that a plain client sent, once it has ended."""
    job = client.job(job_id)
    eventually(lambda: job.status() in ("succeeded", "failed"), lambda: f"{job_id} has not ended")
    return job


def test_the_line_about_an_outcome_names_the_request(
    client: Client, start_worker: StartWorker, origin: Origin, own_valkey: ValkeyServer
) -> None:
    owl, lost = origin.url("/owl.png"), origin.url("/lost.png")
    worker = start_worker("a")
    with own_valkey.connect() as broker:
        send(broker, "good", "by-1", image=owl, candidate_labels=LABELS)
        send(broker, "lost", "by-2", image=lost, candidate_labels=LABELS)
        send(broker, "wrong", "by-3", image=owl, candidate_labels=[])
        send(broker, "many", "by-4", task="nameshot.classify_many", images=[owl, lost], candidate_labels=LABELS)
        send(broker, "broken", "by-5", self=1)
    for job_id in ("good", "lost", "wrong", "many", "broken"):
        ended(client, job_id)

    for line in (
        "job good (request by-1): '",
        "job lost (request by-2) failed: http_status",
        "job wrong (request by-3) failed: invalid_job",
        "job many (request by-4): 2 images, 1 failed (http_status)",
        "refused a malformed message (request by-5): ",
    ):
        assert worker.log.count(line) == 1, worker.log
    for number in range(1, 6):
        assert worker.log.count(f"by-{number}") == 1


def test_a_request_id_of_another_form_is_ignored(
    client: Client, start_worker: StartWorker, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("a")
    with own_valkey.connect() as broker:
        for number, request_id in enumerate(("", "a b", "a\nb", "x" * 65, 7, None, ["a"])):
            send(broker, f"job-{number}", request_id, image=origin.url("/owl.png"), candidate_labels=LABELS)

    for number in range(7):
        assert ended(client, f"job-{number}").result(timeout=TIMEOUT_S).ranking
        worker.wait_for_log(f"job job-{number}: '")
    assert "(request" not in worker.log


def test_a_job_that_runs_again_keeps_its_request_id(
    client: Client, start_worker: StartWorker, origin: Origin, own_valkey: ValkeyServer
) -> None:
    with Ailing(origin.pages["/owl.png"][1], failures=1) as server:
        worker = start_worker("a", **allow(server), **QUICK)
        with own_valkey.connect() as broker:
            send(broker, "ill", "by-1", retries=2, image=server.url("/a.png"), candidate_labels=LABELS)

        assert ended(client, "ill").result(timeout=TIMEOUT_S).attempts == 2
    worker.wait_for_log("job ill (request by-1): '")
    assert "job ill (request by-1) runs again in" in worker.log


def test_a_replayed_dead_letter_keeps_its_request_id(
    client: Client, start_worker: StartWorker, command: Home, origin: Origin, own_valkey: ValkeyServer
) -> None:
    worker = start_worker("a")
    with own_valkey.connect() as broker:
        broker.hset("nameshot:suspects", mapping={"poison": 3, "alone poison": 3})
        send(broker, "poison", "by-1", image=origin.url("/owl.png"), candidate_labels=LABELS)
    with pytest.raises(JobFailed, match="poisoned"):
        ended(client, "poison").result(timeout=TIMEOUT_S)
    worker.wait_for_log("job poison (request by-1) failed: poisoned")
    (letter,) = command.run("dead-letters", "list", "--json").json_lines

    again = command.run("dead-letters", "replay", letter["letter"]).out.strip()

    assert client.job(again).result(timeout=TIMEOUT_S).ranking
    worker.wait_for_log(f"job {again} (request by-1): '")
