"""A client checks a job, and queues it once per id or refuses it with a sentence."""

import asyncio
import hashlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from producer import AsyncClient, ClassifyJob, Client, InvalidJob, Job, JobConflict, Question, QueueFull
from producer.contract.names import QUEUES
from producer.messages.submission import CHUNK_CHARACTERS, MessageWriter
from tests.client.stock_worker import StockWorker, result_for
from tests.valkey_server import ValkeyServer

URL = "https://images.example/owl.jpg"
LABELS = ["fox", "owl"]


def test_a_job_waits_in_the_queue_that_its_client_chose(client: Client) -> None:
    client.submit(URL, LABELS)
    client.submit(URL, LABELS, queue="high")
    client.submit(URL, LABELS, queue="high")

    assert client.queue_depths() == {"high": 2, "default": 1, "bulk": 0}


def test_the_same_id_and_payload_is_queued_once_and_gives_the_same_job(client: Client) -> None:
    first = client.submit(URL, LABELS, job_id="order-17")
    second = client.submit(URL, LABELS, job_id="order-17")

    assert first == second
    assert client.queue_depths()["default"] == 1


def test_queue_and_expiry_are_no_part_of_the_payload(client: Client) -> None:
    client.submit(URL, LABELS, job_id="order-17")
    client.submit(URL, LABELS, job_id="order-17", queue="high", expires_in=5)

    assert client.queue_depths() == {"high": 0, "default": 1, "bulk": 0}


@pytest.mark.parametrize(
    "change", [{"url": URL + "?"}, {"labels": ["owl", "fox"]}, {"top_k": 1}, {"download_timeout": 1.0}]
)
def test_the_same_id_with_another_payload_is_a_conflict(client: Client, change: dict[str, Any]) -> None:
    client.submit(URL, LABELS, job_id="order-17")

    with pytest.raises(JobConflict, match="order-17 was already used with another payload"):
        client.submit(**{"url": URL, "labels": LABELS, "job_id": "order-17", **change})

    assert client.queue_depths()["default"] == 1


def test_an_answered_id_is_still_taken(client: Client, worker: StockWorker) -> None:
    job = client.submit(URL, LABELS, job_id="order-17")
    worker.take()
    worker.succeed(job.id, result_for(LABELS))

    again = client.submit(URL, LABELS, job_id="order-17")

    assert client.queue_depths()["default"] == 0
    assert again.result(timeout=1).best.label == "fox"


def test_the_digest_of_a_payload_is_that_of_earlier_versions(client: Client, valkey: ValkeyServer) -> None:
    client.submit(
        URL, ["fox", "フクロウ"], hypothesis_template=["a {}", "{}!"], top_k=1, download_timeout=2, job_id="order-17"
    )

    # Claims outlive an upgrade of the client, and two versions may submit at the same time.
    written = """nameshot.classify
{"candidate_labels":["fox","\\u30d5\\u30af\\u30ed\\u30a6"],"hypothesis_template":["a {}","{}!"],\
"image":"https://images.example/owl.jpg","timeout":2.0,"top_k":1}"""
    with valkey.connect() as connection:
        assert connection.get("nameshot:claim:order-17") == hashlib.sha256(written.encode()).hexdigest().encode()


def test_an_id_is_claimed_for_a_week_beyond_the_life_of_a_result(client: Client, valkey: ValkeyServer) -> None:
    client.submit(URL, LABELS, job_id="order-17")

    with valkey.connect() as connection:
        assert connection.ttl("nameshot:claim:order-17") == pytest.approx(86_400 + 7 * 86_400, abs=5)


def test_hundreds_of_threads_may_share_a_client(valkey: ValkeyServer, client: Client) -> None:
    """They need more connections than the hundred that a pool of redis-py opens by default."""
    threads = 150
    with valkey.connect(0) as operator, ThreadPoolExecutor(threads) as pool:
        operator.execute_command("CLIENT", "PAUSE", 300, "WRITE")  # until then all threads need a connection at once
        jobs = list(pool.map(lambda _: client.submit(URL, LABELS), range(threads)))

    assert len({job.id for job in jobs}) == threads
    assert client.queue_depths()["default"] == threads


def test_threads_that_submit_the_same_id_at_once_queue_one_message(client: Client) -> None:
    with ThreadPoolExecutor(16) as threads:
        jobs = list(threads.map(lambda _: client.submit(URL, LABELS, job_id="order-17"), range(200)))

    assert set(jobs) == {Job("order-17", client)}
    assert client.queue_depths()["default"] == 1


def submit_range(urls: tuple[str, str]) -> None:
    with Client(*urls) as client:
        for number in range(50):
            client.submit(URL, LABELS, job_id=f"order-{number}")


def test_processes_that_submit_the_same_ids_at_once_queue_each_once(client: Client, valkey: ValkeyServer) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        processes.map(submit_range, [(valkey.broker_url, valkey.result_backend)] * 2, chunksize=1)

    assert client.queue_depths()["default"] == 50


def test_a_full_queue_refuses_new_jobs_and_says_when_to_try_again(valkey: ValkeyServer) -> None:
    with Client(valkey.broker_url, valkey.result_backend, max_queue=2) as client:
        client.submit(URL, LABELS, job_id="a")
        client.submit(URL, LABELS)

        with pytest.raises(QueueFull, match=r"nameshot\.default holds 2 waiting messages") as refused:
            client.submit(URL, LABELS, job_id="late")

        assert refused.value.retry_after_s > 0
        assert client.job("late").status() == "unknown"  # its id is free
        assert client.submit(URL, LABELS, job_id="a").status() == "queued"  # a known id adds no message
        client.submit(URL, LABELS, queue="high")  # the limit is per queue


def test_two_systems_with_different_prefixes_share_a_redis(client: Client, valkey: ValkeyServer) -> None:
    with Client(valkey.url(0, "producer", "other"), valkey.url(1, "producer", "other"), queue_prefix="other") as other:
        other.submit(URL, LABELS, job_id="order-17")
        client.submit("https://images.example/car.jpg", LABELS, job_id="order-17")

        assert other.queue_depths() == client.queue_depths() == {"high": 0, "default": 1, "bulk": 0}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"url": "ftp://x/y"}, "http"),
        ({"url": "owl.jpg"}, "http"),
        ({"url": "http://a/\ud800.jpg"}, r"U\+D800, half of a surrogate pair"),
        ({"labels": []}, "1 to 1,000 labels"),
        ({"labels": ["owl", "owl"]}, "same label"),
        ({"hypothesis_template": "no place"}, "exactly once"),
        ({"top_k": 0}, "top_k must be 1 or more"),
        ({"download_timeout": 0}, "download_timeout must be more than 0"),
        ({"job_id": "a b"}, "job_id must be 1 to 128"),
        ({"job_id": ""}, "job_id must be 1 to 128"),
        ({"job_id": "x" * 129}, "job_id must be 1 to 128"),
        ({"expires_in": 0}, "expires_in must be more than 0"),
        ({"expires_in": float("nan")}, "expires_in must be more than 0"),
        ({"expires_in": 10**4_500}, "not a number of more than 20 digits"),
        ({"expires_in": "5"}, "expires_in must be a number"),
        ({"queue": "slow"}, "queue must be one of high, default, bulk"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_sent(
    client: Client, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidJob, match=sentence):
        client.submit(**{"url": URL, "labels": LABELS, **arguments})

    assert client.queue_depths()["default"] == 0


def test_submit_many_sends_one_message_per_job_in_order(client: Client, worker: StockWorker) -> None:
    jobs = client.submit_many(
        [
            (URL, LABELS),
            {"url": URL, "labels": LABELS, "job_id": "mine", "top_k": 1},
            ClassifyJob(URL, Question(LABELS, ["{}?"])),
            {"url": URL, "labels": LABELS, "queue": "high"},
        ]
    )

    assert [worker.take().headers["id"] for _ in range(3)] == [job.id for job in jobs[:3]]
    assert worker.take("high").headers["id"] == jobs[3].id
    assert jobs[1].id == "mine"


def test_each_job_of_submit_many_has_the_labels_that_its_list_held_when_it_was_read(
    client: Client, worker: StockWorker
) -> None:
    labels = ["fox"]

    def jobs() -> Iterator[tuple[str, list[str]]]:
        for label in ("owl", "bear"):
            yield URL, labels
            labels.append(label)

    client.submit_many(jobs())

    assert [worker.take().payload[1]["candidate_labels"] for _ in range(2)] == [["fox"], ["fox", "owl"]]


@pytest.mark.parametrize(
    ("accepted", "refused", "sentence"),
    [
        ({"top_k": 1}, {"top_k": True}, "top_k must be a whole number"),
        ({"top_k": 1}, {"top_k": 1.0}, "top_k must be a whole number"),
        ({"download_timeout": 1}, {"download_timeout": True}, "download_timeout must be a number"),
        ({"labels": ["o", "w"]}, {"labels": "ow"}, "must be a list of strings, not str"),
        ({"labels": ["fox"]}, {"labels": {"fox": 1}}, "must be a list of strings, not dict"),
        ({"labels": ["fox"]}, {"labels": ["fox", ["fox"]]}, r"labels\[1\] must be a string, not list"),
        ({"labels": ["fox"]}, {"labels": ["fox", "fox"]}, "same label"),
        ({"hypothesis_template": "{}"}, {"hypothesis_template": [["{}"]]}, r"template\[0\] must be a string, not list"),
        ({"hypothesis_template": "{}"}, {"hypothesis_template": {"{}": 1}}, "template must be a string, not dict"),
    ],
)
def test_submit_many_refuses_a_wrong_job_that_resembles_an_accepted_one_and_names_its_position(
    client: Client, accepted: dict[str, Any], refused: dict[str, Any], sentence: str
) -> None:
    jobs = [{"url": URL, "labels": LABELS, **each} for each in (accepted, accepted, refused)]

    for _ in range(2):
        with pytest.raises(InvalidJob, match=rf"^jobs\[2\]: .*{sentence}"):
            client.submit_many(jobs)

    assert client.queue_depths()["default"] == 4


def test_the_more_labels_the_fewer_messages_are_sent_at_a_time() -> None:
    labels = [f"label {number}" for number in range(1_000)]

    chunks = [chunk for chunk, _ in MessageWriter("nameshot", 60).chunks([(URL, labels)] * 100)]

    assert sum(map(len, chunks)) == 100
    for chunk in chunks:
        assert sum(len(submission.message) for submission in chunk[:-1]) < CHUNK_CHARACTERS


def test_many_jobs_may_come_from_any_iterable(client: Client) -> None:
    jobs = client.submit_many((f"https://images.example/{number}.jpg", LABELS) for number in range(1_234))

    assert len({job.id for job in jobs}) == 1_234
    assert client.queue_depths()["default"] == 1_234


def test_submit_many_stops_at_the_first_bad_job_and_earlier_jobs_are_queued(client: Client) -> None:
    with pytest.raises(InvalidJob, match=r"jobs\[130\]: url must be an absolute http"):
        client.submit_many(("no url" if number == 130 else URL, LABELS) for number in count())

    assert client.queue_depths()["default"] == 130


def submit_many_blocking(valkey: ValkeyServer, jobs: Iterator[Any]) -> None:
    with Client(valkey.broker_url, valkey.result_backend) as client:
        client.submit_many(jobs)


def submit_many_async(valkey: ValkeyServer, jobs: Iterator[Any]) -> None:
    async def submit() -> None:
        async with AsyncClient(valkey.broker_url, valkey.result_backend) as client:
            await client.submit_many(jobs)

    asyncio.run(submit())


@pytest.mark.parametrize("submit_many", [submit_many_blocking, submit_many_async])
def test_an_exception_in_the_source_of_many_jobs_reaches_the_caller_and_earlier_jobs_are_queued(
    submit_many: Callable[[ValkeyServer, Iterator[Any]], None], client: Client, valkey: ValkeyServer
) -> None:
    mistake = LookupError("no more pages")

    def jobs() -> Iterator[tuple[str, list[str]]]:
        for _ in range(150):
            yield URL, LABELS
        raise mistake

    with pytest.raises(LookupError) as raised:
        submit_many(valkey, jobs())

    assert raised.value is mistake
    assert client.queue_depths()["default"] == 150


def test_submit_many_stops_where_the_queue_is_full_and_can_be_repeated(valkey: ValkeyServer, client: Client) -> None:
    jobs = [{"url": URL, "labels": LABELS, "job_id": f"order-{number}"} for number in range(300)]
    with (
        Client(valkey.broker_url, valkey.result_backend, max_queue=250) as limited,
        pytest.raises(QueueFull, match=r"Jobs that were queued before this one: 250\."),
    ):
        limited.submit_many(jobs)

    client.submit_many(jobs)

    assert client.queue_depths()["default"] == 300


def test_submit_many_counts_each_queues_limit_separately_and_known_ids_not_at_all(valkey: ValkeyServer) -> None:
    jobs = [{"url": URL, "labels": LABELS, "job_id": f"a-{n}", "queue": queue} for n, queue in enumerate(QUEUES * 2)]
    with Client(valkey.broker_url, valkey.result_backend, max_queue=2) as client:
        client.submit_many([*jobs, *jobs])

        with pytest.raises(QueueFull, match=r"nameshot\.high holds 2 .* Jobs that were queued before this one: 6\."):
            client.submit_many([*jobs, {"url": URL, "labels": LABELS, "queue": "high"}, (URL, LABELS)])

        assert client.queue_depths() == {"high": 2, "default": 2, "bulk": 2}


def test_submit_many_stops_at_a_conflict(client: Client) -> None:
    client.submit(URL, ["another"], job_id="order-2")

    with pytest.raises(JobConflict, match=r"order-2 was already used.* Jobs that were queued before this one: 2\."):
        client.submit_many({"url": URL, "labels": LABELS, "job_id": f"order-{number}"} for number in range(4))

    assert client.queue_depths()["default"] == 3


@pytest.mark.parametrize("job", [{"url": URL}, {"url": URL, "labels": LABELS, "color": 1}, URL, (URL,), None])
def test_an_item_that_is_no_job_is_named_by_its_position(client: Client, job: Any) -> None:
    with pytest.raises(InvalidJob, match=r"^jobs\[0\]: "):
        client.submit_many([job])


def test_a_client_reads_the_environment_only_when_it_is_made(
    valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAMESHOT_BROKER_URL", valkey.broker_url)
    monkeypatch.setenv("NAMESHOT_RESULT_BACKEND", valkey.result_backend)
    monkeypatch.setenv("NAMESHOT_MAX_QUEUE", "1")
    with Client() as client:
        monkeypatch.setenv("NAMESHOT_BROKER_URL", "redis://127.0.0.1:1/0")
        client.submit(URL, LABELS)
        with pytest.raises(QueueFull):
            client.submit(URL, LABELS)
