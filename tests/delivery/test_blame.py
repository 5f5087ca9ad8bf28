"""One death of a worker fails none of its jobs; a job that kills worker after worker fails, and no other with it."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery
from PIL import Image

from producer import Client, JobFailed
from producer.client.jobs import Job
from producer.contract.names import Queue
from tests.acceptance.origin import Origin
from tests.chaos.null_model import POISON_COLOUR
from tests.cli.command import Home
from tests.delivery.conftest import StartWorker, Supervise
from tests.delivery.null_workers import MAX_ATTEMPTS, POISON
from tests.eventually import eventually
from tests.images.files import encoded
from tests.valkey_server import ValkeyServer
from worker.delivery.marks import DRAINING

LABELS = ["fox", "bear"]
TIMEOUT_S = 60
#: Within this time a worker starts four times.
DEATHS_TIMEOUT_S = 100
IN_HAND = 48
#: Enough for all the jobs in hand and for others.
PLACES = "96"
#: With this setting a worker does not measure its model at start.
UNMEASURED = {"NAMESHOT_MAX_BATCH": "4"}


@pytest.fixture
def broker(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with own_valkey.connect() as broker:
        yield broker


def hold(
    client: Client, origin: Origin, count: int, *, labels: list[str] = LABELS, queue: Queue = "default"
) -> list[Job]:
    """Submit ``count`` jobs, and return once a worker downloads the image of each."""
    jobs = [client.submit(origin.url("/held/owl.png"), labels, queue=queue) for _ in range(count)]
    for _ in jobs:
        assert origin.asked.acquire(timeout=TIMEOUT_S)
    return jobs


def suspect(broker: redis.Redis, job_id: str, deaths: int = 2) -> str:
    """Record a job as in hand of ``deaths`` workers that died; return its id."""
    broker.hset("nameshot:suspects", job_id, deaths)
    return job_id


def alone(broker: redis.Redis) -> bytes | None:
    """Return the only worker's mark: the suspect that it runs alone, or that it drains; None without a mark."""
    keys = broker.keys("nameshot:alone:*")
    found = broker.get(keys[0]) if keys else None
    assert not isinstance(found, str)
    return found


def test_the_jobs_of_a_killed_worker_run_side_by_side_and_a_job_of_high_waits_for_none_of_them(
    start_worker: StartWorker, client: Client, origin: Origin, broker: redis.Redis
) -> None:
    victim = start_worker("victim", NAMESHOT_CONCURRENCY=PLACES)
    jobs = hold(client, origin, IN_HAND)
    victim.process.kill()
    victim.process.wait()

    heir = start_worker("heir", NAMESHOT_CONCURRENCY=PLACES)
    for _ in jobs:  # no download ends before all of them have begun
        assert origin.asked.acquire(timeout=TIMEOUT_S), heir.log
    assert broker.hvals("nameshot:suspects") == [b"1"] * IN_HAND
    assert client.classify(origin.url("/owl.png"), LABELS, queue="high", timeout=TIMEOUT_S).ranking

    origin.hold.set()
    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)
    assert "it runs alone" not in heir.log
    eventually(lambda: not broker.exists("nameshot:suspects"), lambda: heir.log)


def test_suspects_download_side_by_side_and_a_mark_exists_only_while_one_of_them_runs_alone(
    start_worker: StartWorker,
    client: Client,
    origin: Origin,
    broker: redis.Redis,
    tmp_path: Path,
) -> None:
    hang = tmp_path / "hang"
    worker = start_worker("careful", NULL_HANG=str(hang), **UNMEASURED)
    names = {suspect(broker, f"suspect-{number}") for number in range(4)}
    jobs = [client.submit(origin.url("/held/owl.png"), LABELS, job_id=name) for name in sorted(names)]
    for _ in jobs:
        assert origin.asked.acquire(timeout=TIMEOUT_S), worker.log
    eventually(lambda: alone(broker) is None)  # their labels have run

    hang.touch()
    origin.hold.set()
    eventually(lambda: alone(broker) in {name.encode() for name in names}, lambda: worker.log)
    hang.unlink()

    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)
    eventually(lambda: not broker.exists("nameshot:suspects"), lambda: worker.log)
    assert alone(broker) is None


def test_a_job_of_high_waits_for_few_of_many_suspects_and_all_of_them_end_in_time(
    start_worker: StartWorker, client: Client, origin: Origin, broker: redis.Redis
) -> None:
    settings = {"NULL_FORWARD_MS": "200", "NAMESHOT_CONCURRENCY": PLACES, **UNMEASURED}
    # All the jobs together take three times the timeout.
    worker = start_worker("patient", NAMESHOT_JOB_TIMEOUT="3", **settings)
    jobs = [
        client.submit(origin.url("/owl.png"), LABELS, job_id=suspect(broker, f"suspect-{number}"))
        for number in range(IN_HAND)
    ]

    def answered() -> int:
        return sum(job.status() == "succeeded" for job in jobs)

    eventually(lambda: answered() > 0, lambda: worker.log)
    before = answered()
    assert client.classify(origin.url("/car.jpg"), ["new", "labels"], queue="high", timeout=TIMEOUT_S).ranking
    assert answered() - before < IN_HAND / 4

    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)
    assert "failed" not in worker.log


@pytest.mark.parametrize(  # test_dead_letters.py does the same with the stage "prompts"
    "stage", [*(pytest.param(stage, marks=pytest.mark.thorough) for stage in ("tokens", "preparation")), "images"]
)
def test_a_poisoned_job_fails_after_three_deaths_of_workers_and_its_neighbours_are_answered(
    stage: str, supervise: Supervise, client: Client, command: Home, origin: Origin, broker: redis.Redis
) -> None:
    origin.pages["/poison.png"] = ("image/png", encoded(Image.new("RGB", (64, 64), POISON_COLOUR), "PNG"))
    settings = {"NULL_POISONED_STAGE": stage, "NAMESHOT_CONCURRENCY": PLACES, **UNMEASURED}
    with supervise("poisoned", poison_label=POISON, **settings) as workers:
        mates = hold(client, origin, IN_HAND)
        path, labels = ("/held/owl.png", ["fox", POISON]) if stage == "tokens" else ("/held/poison.png", LABELS)
        culprit = client.submit(origin.url(path), labels)
        origin.hold.set()

        with pytest.raises(JobFailed) as failed:
            culprit.result(timeout=DEATHS_TIMEOUT_S)
        assert failed.value.code == "poisoned"
        assert all(mate.result(timeout=TIMEOUT_S).ranking for mate in mates)
        assert workers.starts == MAX_ATTEMPTS + 1
        eventually(lambda: not broker.exists("nameshot:suspects"), lambda: workers.log)

    (letter,) = command.run("dead-letters", "list", "--json").json_lines
    assert (letter["id"], letter["code"], letter["deaths"]) == (culprit.id, "poisoned", MAX_ATTEMPTS)


def test_a_poisoned_image_of_a_bulk_job_fails_after_three_deaths_and_the_other_images_are_answered(
    supervise: Supervise, client: Client, command: Home, origin: Origin
) -> None:
    origin.pages["/poison.png"] = ("image/png", encoded(Image.new("RGB", (64, 64), POISON_COLOUR), "PNG"))
    urls = [origin.url(path) for path in ("/owl.png", "/car.jpg", "/poison.png", "/owl.png")]
    with supervise("poisoned", NULL_POISONED_STAGE="images", **UNMEASURED) as workers:
        outcomes = list(client.classify_many(urls, LABELS))

        assert workers.starts == MAX_ATTEMPTS + 1
    failures = {outcome.index: outcome.error for outcome in outcomes if outcome.error}
    assert {index: failure.code for index, failure in failures.items()} == {2: "poisoned"}
    (letter,) = command.run("dead-letters", "list", "--json").json_lines
    assert (letter["image"], letter["deaths"]) == (2, MAX_ATTEMPTS)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "control shutdown"])
def test_a_worker_that_is_killed_while_it_drains_blames_no_job(
    how: str,
    start_worker: StartWorker,
    client: Client,
    origin: Origin,
    broker: redis.Redis,
    own_valkey: ValkeyServer,
) -> None:
    leaving = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600")
    jobs = hold(client, origin, 3)
    if how == "control shutdown":
        with Celery(broker=own_valkey.url(0), set_as_current=False) as operator:
            operator.control.shutdown()
    else:
        leaving.process.send_signal(signal.Signals[how])
    eventually(lambda: alone(broker) == DRAINING.encode(), lambda: leaving.log)
    leaving.process.kill()
    leaving.process.wait()

    origin.hold.set()
    start_worker("heir")
    assert all(job.result(timeout=TIMEOUT_S).ranking for job in jobs)
    assert not broker.exists("nameshot:suspects")
    assert not broker.keys("nameshot:alone:*")


def test_a_suspect_that_runs_alone_in_a_draining_worker_is_blamed_for_the_worker_s_death(
    start_worker: StartWorker,
    client: Client,
    origin: Origin,
    broker: redis.Redis,
    tmp_path: Path,
) -> None:
    hang = tmp_path / "hang"
    settings = {"NULL_HANG": str(hang), "NAMESHOT_FETCH_ALLOW": "127.0.0.1/32:*", **UNMEASURED}
    leaving = start_worker("leaving", NAMESHOT_DRAIN_TIMEOUT="600", **settings)
    with Origin() as another:
        another.pages = origin.pages
        (mate,) = hold(client, another, 1)
        culprit = client.submit(origin.url("/held/owl.png"), LABELS, job_id=suspect(broker, "suspect"))
        assert origin.asked.acquire(timeout=TIMEOUT_S)
        leaving.process.send_signal(signal.SIGTERM)
        eventually(lambda: alone(broker) == DRAINING.encode(), lambda: leaving.log)
        hang.touch()
        origin.hold.set()
        eventually(lambda: alone(broker) == b"suspect", lambda: leaving.log)
        leaving.process.kill()
        leaving.process.wait()
        hang.unlink()
        another.hold.set()

        heir = start_worker("heir", NAMESHOT_FETCH_ALLOW="127.0.0.1/32:*")
        with pytest.raises(JobFailed, match="poisoned"):
            culprit.result(timeout=TIMEOUT_S)
        assert mate.result(timeout=TIMEOUT_S).ranking
        assert heir.log.count("it runs alone") == 0
