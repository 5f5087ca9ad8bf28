"""`classify_many` sends any number of images, few at a time, and yields an outcome for each."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count, islice
from typing import Any

import pytest

from producer import BrokerUnavailable, Client, InvalidJob, JobFailed
from producer.client.bulk import RetryPolicy
from tests.client.stock_worker import StockWorker, result_for
from tests.valkey_server import ValkeyServer

LABELS = ["fox", "owl"]


def urls(number: int) -> list[str]:
    return [f"https://images.example/{position}.jpg" for position in range(number)]


def answer_all(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"outcomes": [result_for(kwargs["candidate_labels"]) for _ in kwargs["images"]]}


def test_every_image_has_one_outcome_with_its_url_and_position(client: Client, worker: StockWorker) -> None:
    given = urls(100)
    with worker.serving("bulk", answer_all):
        outcomes = list(client.classify_many(given, LABELS))

    assert sorted((outcome.index, outcome.image) for outcome in outcomes) == list(enumerate(given))
    assert all(outcome.ok for outcome in outcomes)
    assert len(worker.taken) == 4  # 32 + 32 + 32 + 4 images


def test_without_images_no_message_is_sent(client: Client) -> None:
    assert list(client.classify_many([], LABELS)) == []


def test_ten_thousand_images_stay_within_the_messages_in_flight(client: Client, worker: StockWorker) -> None:
    ahead: list[int] = []
    read = 0

    def source() -> Iterator[str]:
        nonlocal read
        for url in urls(10_000):
            read += 1
            yield url

    with worker.serving("bulk", answer_all):
        for seen, _ in enumerate(client.classify_many(source(), LABELS, in_flight=8)):
            ahead.append(read - seen)

    assert len(ahead) == 10_000
    assert max(ahead) <= 8 * 32
    assert len(worker.taken) == len(set(worker.taken)) == 313


def test_an_endless_source_is_read_only_as_far_as_needed(client: Client, worker: StockWorker) -> None:
    endless = (f"https://images.example/{number}.jpg" for number in count())
    with worker.serving("bulk", answer_all), closing(client.classify_many(endless, LABELS, in_flight=2)) as stream:
        assert len(list(islice(stream, 500))) == 500

    assert next(endless) < "https://images.example/7"  # the caller got 500; at most two more messages were filled


def test_outcomes_come_as_they_finish(client: Client, worker: StockWorker) -> None:
    seen = threading.Semaphore(0)

    def finish_backwards() -> None:
        for message in reversed([worker.take("bulk") for _ in range(3)]):
            worker.succeed(message.headers["id"], answer_all(message.payload[1]))
            seen.acquire(timeout=10)

    finishing = threading.Thread(target=finish_backwards)
    finishing.start()
    order = []
    for outcome in client.classify_many(urls(3), LABELS, images_per_message=1):
        order.append(outcome.index)
        seen.release()
    finishing.join()

    assert order == [2, 1, 0]


def test_outcomes_come_in_the_input_order_if_ordered_is_set(client: Client, worker: StockWorker) -> None:
    def finish_backwards() -> None:
        for message in reversed([worker.take("bulk") for _ in range(2)]):
            worker.succeed(message.headers["id"], answer_all(message.payload[1]))

    finishing = threading.Thread(target=finish_backwards)
    finishing.start()
    stream = client.classify_many(["bad", *urls(2), "bad"], LABELS, images_per_message=1, ordered=True)
    order = [(outcome.index, outcome.ok) for outcome in stream]
    finishing.join()

    assert order == [(0, False), (1, True), (2, True), (3, False)]


def test_a_bad_url_is_one_outcome_and_the_stream_goes_on(client: Client, worker: StockWorker) -> None:
    given: list[Any] = ["https://a.example/1", "owl.jpg", "ftp://a.example/2", "data:image/png;base64,AA", None, ""]
    given.append("http://a.example/\ud800")
    with worker.serving("bulk", answer_all):
        outcomes = sorted(client.classify_many([*given, "https://a.example/3"], LABELS), key=lambda each: each.index)

    codes = [outcome.error.code if outcome.error else "" for outcome in outcomes]
    assert codes == ["", "invalid_url", "scheme_not_allowed", "scheme_not_allowed", *["invalid_url"] * 3, ""]
    assert [outcome.image for outcome in outcomes[:2]] == given[:2]


def test_bad_urls_are_never_sent(client: Client) -> None:
    outcomes = list(islice(client.classify_many((f"bad {number}" for number in count()), LABELS), 1_000))

    assert not any(outcome.ok for outcome in outcomes)
    assert client.queue_depths()["bulk"] == 0


def test_the_failure_of_an_image_affects_no_other(client: Client, worker: StockWorker) -> None:
    failure = {"error": {"code": "empty", "message": "the body has no bytes.", "retryable": False}}
    with worker.serving("bulk", lambda kwargs: {"outcomes": [failure, *answer_all(kwargs)["outcomes"][1:]]}):
        outcomes = list(client.classify_many(urls(3), LABELS))

    assert [outcome.ok for outcome in outcomes] == [False, True, True]
    assert outcomes[0].error is not None
    assert outcomes[0].error.code == "empty"


def test_a_failed_message_is_an_error_for_each_of_its_images(client: Client, worker: StockWorker) -> None:
    def fail_the_first(kwargs: dict[str, Any]) -> dict[str, Any]:
        if kwargs["images"][0] == urls(1)[0]:
            raise JobFailed("out_of_memory", "the device ran out of memory.")
        return answer_all(kwargs)

    with worker.serving("bulk", fail_the_first):
        outcomes = list(client.classify_many(urls(4), LABELS, images_per_message=2, ordered=True))

    assert [outcome.ok for outcome in outcomes] == [False, False, True, True]
    assert {outcome.error.code for outcome in outcomes[:2] if outcome.error} == {"out_of_memory"}


def test_an_expired_message_is_an_error_for_each_of_its_images(client: Client, worker: StockWorker) -> None:
    stream = client.classify_many(urls(2), LABELS, expires_in=60)
    expiring = threading.Thread(target=lambda: worker.expire(worker.take("bulk").headers["id"]))
    expiring.start()

    assert [outcome.error.code for outcome in stream if outcome.error] == ["expired", "expired"]
    expiring.join()


def test_shared_arguments_are_checked_before_anything_is_read(client: Client) -> None:
    source = iter(urls(1))
    wrong: dict[str, Any]
    for wrong in ({"labels": []}, {"top_k": 0}, {"images_per_message": 65}, {"in_flight": 0}, {"queue": "slow"}):
        arguments: dict[str, Any] = {"labels": LABELS, **wrong}
        with pytest.raises(InvalidJob):
            client.classify_many(source, **arguments)

    assert len(list(source)) == 1


@pytest.mark.parametrize("url", ["https://img.example/owl.png", b"https://img.example/owl.png"])
def test_a_single_url_in_place_of_a_list_is_refused(url: Any, client: Client) -> None:
    with pytest.raises(InvalidJob, match="not a single URL"):
        client.classify_many(url, LABELS)


@pytest.mark.parametrize("name", ["images_per_message", "in_flight"])
@pytest.mark.parametrize(
    ("value", "kind"), [(1.5, "float"), (float("nan"), "float"), ("3", "str"), (None, "NoneType"), (True, "bool")]
)
def test_numbers_of_images_and_messages_must_be_whole(name: str, value: Any, kind: str, client: Client) -> None:
    with pytest.raises(InvalidJob, match=f"^{name} must be a whole number, not {kind}.$"):
        client.classify_many(urls(1), LABELS, **{name: value})


@pytest.mark.parametrize("wrong", [{"images_per_message": 10**4_500}, {"in_flight": -(10**4_500)}])
def test_numbers_that_are_too_long_to_print_are_not_printed(wrong: dict[str, Any], client: Client) -> None:
    with pytest.raises(InvalidJob, match=r"not a number of more than 20 digits\.$"):
        client.classify_many(urls(1), LABELS, **wrong)


def test_messages_shrink_where_the_answer_would_be_too_long(client: Client, worker: StockWorker) -> None:
    labels = [str(number) for number in range(1_000)]
    with worker.serving("bulk", answer_all):
        assert len(list(client.classify_many(urls(60), labels))) == 60

    assert len(worker.taken) == 3  # 20 images with 1,000 scores each make the 20,000 of one message


def test_closing_classify_many_early_cancels_the_unfinished_jobs(
    client: Client, worker: StockWorker, valkey: ValkeyServer
) -> None:
    with closing(client.classify_many(urls(1_000), LABELS, images_per_message=1, in_flight=5)) as stream:
        answering = threading.Thread(
            target=lambda: worker.succeed(worker.take("bulk").headers["id"], {"outcomes": [result_for(LABELS)]})
        )
        answering.start()
        next(stream)
        answering.join()

    left = [worker.take("bulk").headers["id"] for _ in range(client.queue_depths()["bulk"])]
    assert 4 <= len(left) <= 5
    assert {client.job(job_id).status() for job_id in left} == {"cancelled"}
    with valkey.connect() as connection:
        deadline_s = time.monotonic() + 5
        while connection.pubsub_channels("*") and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert connection.pubsub_channels("*") == []


def test_an_exception_in_the_source_cancels_what_was_sent_and_reaches_the_caller(client: Client) -> None:
    def source() -> Iterator[str]:
        yield from urls(3)
        raise LookupError("no more pages")

    with pytest.raises(LookupError):
        list(client.classify_many(source(), LABELS, images_per_message=1))

    assert client.queue_depths()["bulk"] == 3  # they have answers (cancelled), so a worker drops them


def test_a_full_queue_slows_the_stream_and_does_not_end_it(
    valkey: ValkeyServer, worker: StockWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.client.bulk.RETRY_PAUSE_S", 0.02)

    def scripts_run() -> int:
        with valkey.connect() as connection:
            return int(connection.info("commandstats")["cmdstat_evalsha"]["calls"])

    def make_room_after_some_refusals() -> None:
        deadline_s = time.monotonic() + 30
        while scripts_run() < before + 3 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        for _ in range(2):
            worker.take("bulk")
        for _ in range(20):
            message = worker.take("bulk")
            worker.succeed(message.headers["id"], answer_all(message.payload[1]))

    with Client(valkey.broker_url, valkey.result_backend, max_queue=2) as client:
        for _ in range(2):  # another client's jobs fill the queue before the first message
            client.submit(urls(1)[0], LABELS, queue="bulk")
        before = scripts_run()
        working = threading.Thread(target=make_room_after_some_refusals)
        working.start()
        outcomes = list(client.classify_many(urls(20), LABELS, images_per_message=1))
        working.join()

    assert [outcome.ok for outcome in outcomes] == [True] * 20


def test_a_restart_of_redis_slows_the_stream_and_does_not_end_it(own_valkey: ValkeyServer) -> None:
    restarted = threading.Event()

    def source() -> Iterator[str]:
        for position, url in enumerate(urls(40)):
            if position == 20:
                own_valkey.stop()
                threading.Timer(0.3, start_again).start()
            yield url

    def start_again() -> None:
        own_valkey.start()
        restarted.set()

    worker = StockWorker(own_valkey)

    def serve() -> None:
        restarted.wait(10)
        for _ in range(40):
            message = worker.take("bulk")
            worker.succeed(message.headers["id"], answer_all(message.payload[1]))

    serving = threading.Thread(target=serve)
    serving.start()
    with Client(own_valkey.broker_url, own_valkey.result_backend) as client:
        outcomes = list(client.classify_many(source(), LABELS, images_per_message=1))
    serving.join()
    worker.close()

    assert [outcome.ok for outcome in outcomes] == [True] * 40


@pytest.mark.timeout(20)  # far below the minute that the client would wait for a Redis it had already reached
def test_a_redis_that_was_never_reachable_ends_the_stream_at_once(closed_url: str) -> None:
    with Client(closed_url, closed_url) as client, pytest.raises(BrokerUnavailable):
        list(client.classify_many(urls(3), LABELS))


def test_the_client_waits_for_a_redis_that_was_reachable_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = RetryPolicy()
    patience.sent()
    patience.refused(BrokerUnavailable("away"))

    monkeypatch.setattr("producer.client.bulk.OUTAGE_S", -1.0)

    with pytest.raises(BrokerUnavailable, match="away"):
        patience.refused(BrokerUnavailable("away"))
