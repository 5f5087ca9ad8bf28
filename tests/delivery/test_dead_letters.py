"""A job that kills workers, or a message that they cannot read, becomes a dead letter, and the workers go on."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery

from producer import Client, JobFailed
from tests.acceptance.origin import Origin
from tests.cli.command import Home
from tests.delivery.conftest import Supervise
from tests.delivery.null_workers import MAX_ATTEMPTS, POISON
from tests.eventually import eventually
from tests.valkey_server import ValkeyServer

TIMEOUT_S = 60
LABELS = ["fox", "bear"]
LETTERS, MESSAGES = "nameshot:dead-letters", "nameshot:dead-letters:messages"


def test_a_poisoned_job_fails_alone_is_listed_and_succeeds_when_it_is_replayed_elsewhere(
    supervise: Supervise, client: Client, command: Home, own_valkey: ValkeyServer, origin: Origin
) -> None:
    origin.hold.clear()
    with supervise("poisoned", poison_label=POISON) as workers:
        innocents = [client.submit(origin.url("/held/owl.png"), LABELS) for _ in range(3)]
        for _ in innocents:
            assert origin.asked.acquire(timeout=TIMEOUT_S)
        culprit = client.submit(origin.url("/car.jpg?signature=secret"), ["fox", POISON])
        eventually(lambda: workers.starts > 1, lambda: "the poison job killed no worker")
        origin.hold.set()

        with pytest.raises(JobFailed) as failed:
            culprit.result(timeout=TIMEOUT_S)
        assert failed.value.code == "poisoned"
        for job in innocents:
            assert job.result(timeout=TIMEOUT_S).ranking
        assert workers.starts == MAX_ATTEMPTS + 1
        assert "secret" not in workers.log
        assert POISON not in workers.log

    (letter,) = command.run("dead-letters", "list", "--json").json_lines
    assert letter["id"] == culprit.id
    assert (letter["code"], letter["deaths"]) == ("poisoned", MAX_ATTEMPTS)
    assert (letter["task"], letter["queue"]) == ("nameshot.classify", "nameshot.default")
    shown = command.run("dead-letters", "show", letter["letter"]).out
    assert culprit.id in shown
    for secret in ("http", "secret", POISON):
        assert secret not in shown + json.dumps(letter)

    replayed = command.run("dead-letters", "replay", letter["letter"])

    assert (replayed.status, replayed.err) == (0, "")
    again = client.job(replayed.out.strip())
    assert again.id != culprit.id
    assert again.status() == "queued"
    assert "no dead letters" in command.run("dead-letters", "list").sentence
    with own_valkey.connect() as broker:
        assert not broker.exists(LETTERS, MESSAGES)
    with supervise("harmless") as workers:
        assert {score.label for score in again.result(timeout=TIMEOUT_S).ranking} == {"fox", POISON}
        assert workers.starts == 1
    with pytest.raises(JobFailed, match="poisoned"):
        culprit.result(timeout=1)


def test_a_poisoned_image_of_a_bulk_job_has_its_own_dead_letter_and_is_replayed_without_the_others(
    supervise: Supervise, command: Home, own_valkey: ValkeyServer, origin: Origin
) -> None:
    with own_valkey.connect() as broker:  # these are the records of a worker that died of the second image
        broker.hset("nameshot:suspects", mapping={"a-bulk-job": 3, "alone a-bulk-job 1": 1})
    images = [origin.url(path) for path in ("/owl.png", "/car.jpg?secret", "/owl.png")]
    with Celery(broker=own_valkey.broker_url, backend=own_valkey.result_backend) as plain, supervise():
        plain.send_task(
            "nameshot.classify_many",
            kwargs={"images": images, "candidate_labels": LABELS},
            queue="nameshot.bulk",
            task_id="a-bulk-job",
        )
        first, second, third = plain.AsyncResult("a-bulk-job").get(TIMEOUT_S)["outcomes"]
        assert second["error"]["code"] == "poisoned"
        assert first["ranking"] == third["ranking"]

        (letter,) = command.run("dead-letters", "list", "--json").json_lines
        assert (letter["id"], letter["image"], letter["queue"]) == ("a-bulk-job", 1, "nameshot.bulk")
        again = command.run("dead-letters", "replay", "--all").out.strip()
        (outcome,) = plain.AsyncResult(again).get(TIMEOUT_S)["outcomes"]

    assert outcome["image"]["format"] == "JPEG"


HEADERS = {"task": "nameshot.classify", "id": "half-a-job"}
ENVELOPE = {
    "body": base64.b64encode(b"null").decode(),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": HEADERS,
    "properties": {"body_encoding": "base64", "delivery_tag": "x", "delivery_info": {}},
}


def envelope(**parts: object) -> bytes:
    return json.dumps({**ENVELOPE, **parts}).encode()


def body(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


NO_ARGUMENTS = body("[[],{},{}]")


@pytest.fixture(scope="module")
def junk() -> dict[str, bytes]:
    """What other programs may push: no JSON, no object, no envelope, no task, and envelopes that crash Celery."""
    in_two_hours = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    return {
        "null": b"null",
        "array": b"[]",
        "object": b"{}",
        "no UTF-8": b"\xff\xfe",
        "deep objects": b"{" * 50_000,
        "deep arrays": b"[" * 50_000,
        "deep and closed": b"[" * 50_000 + b"]" * 50_000,
        "long text": b"hush-hush " * 7_000,
        "NaN": b"NaN",
        "NaN inside": b'{"body": NaN, "headers": NaN, "properties": NaN}',
        "body null": envelope(),
        "body is NaN": envelope(body=base64.b64encode(b"NaN").decode()),
        "arguments with NaN": envelope(body=base64.b64encode(b"[NaN, {}, {}]").decode()),
        "no task": envelope(headers={}),
        "task is a list": envelope(headers={"task": ["hush-hush"], "id": "x"}),
        "task of others": envelope(headers={"task": "hush-hush", "id": "x"}),
        "protocol 1": envelope(headers={}, body=base64.b64encode(b'{"task": "nameshot.classify"}').decode()),
        "id is a list": envelope(headers={"task": "nameshot.classify", "id": ["hush-hush"]}),
        "eta": envelope(headers={**HEADERS, "eta": "hush-hush"}, body=NO_ARGUMENTS),
        "eta in two hours": envelope(headers={**HEADERS, "eta": in_two_hours}, body=NO_ARGUMENTS),
        "expires": envelope(headers={**HEADERS, "expires": {"hush-hush": 1}}, body=NO_ARGUMENTS),
        "encoding": envelope(**{"content-type": "application/x-hush-hush", "headers": HEADERS}, body=NO_ARGUMENTS),
        "compressed": envelope(headers={**HEADERS, "compression": "application/x-gzip"}, body=NO_ARGUMENTS),
        "no base64": envelope(body="hush-hush"),
        "an encoding of others": envelope(body=NO_ARGUMENTS, properties={"body_encoding": "hush-hush"}),
        "too large": envelope(headers={**HEADERS, "origin": "hush-hush" * 500_000}, body=NO_ARGUMENTS),
        "a task that is no key": envelope(headers={}, body=body('{"task": ["hush-hush"], "id": "x"}')),
        "lone surrogate": envelope(body=body(r'[[], {"image": "\ud800 hush-hush"}, {}]')),
        "a name twice": envelope(body=body('[[], {"image": "", "image": "hush-hush"}, {}]')),
        "a number without end": envelope(body=body(f'[[], {{"top_k": 1{"0" * 5_000}}}, {{}}]')),
        "infinity": envelope(body=body('[[], {"timeout": 1e999}, {}]')),
        "a body without end": envelope(body=body("[" * 50_000)),
        **{
            name: envelope(body=body(f'[[], {{}}, {{"{name}": [{{"task": "hush-hush"}}]}}]'))
            for name in ("callbacks", "errbacks", "chain", "chord")
        },
    }


def test_junk_becomes_dead_letters_and_the_worker_goes_on(
    supervise: Supervise,
    client: Client,
    command: Home,
    own_valkey: ValkeyServer,
    origin: Origin,
    junk: dict[str, bytes],
) -> None:
    with supervise() as workers, own_valkey.connect() as broker:
        for raw in junk.values():
            broker.lpush("nameshot.default", raw)

        assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking

        eventually(lambda: broker.llen(LETTERS) == len(junk), lambda: "not every message became a letter")
        assert workers.starts == 1
        eventually(lambda: not broker.keys("nameshot:in-flight:*"), lambda: "a message is still held")
        assert "hush-hush" not in workers.log
        assert "Traceback" not in workers.log
        letters = command.run("dead-letters", "list", "--json").json_lines
        assert {letter["code"] for letter in letters} == {"malformed"}
        assert [letter["bytes"] for letter in letters[::-1]] == [len(raw) for raw in junk.values()]
        assert {letter["id"] for letter in letters} == {None, "half-a-job", "x"}
        assert "hush-hush" not in json.dumps(letters)
        assert {broker.hget(MESSAGES, letter["letter"]) for letter in letters} == {b""}  # none can be replayed

    refused = command.run("dead-letters", "replay", letters[0]["letter"])

    assert refused.status == 1
    assert "is malformed and cannot be replayed" in refused.sentence
    assert "there are no dead letters that can be replayed" in command.run("dead-letters", "replay", "--all").sentence


def test_junk_that_cannot_be_stored_as_a_dead_letter_is_dropped(
    supervise: Supervise, client: Client, own_valkey: ValkeyServer, origin: Origin
) -> None:
    with supervise() as workers, own_valkey.connect() as broker:
        broker.set(LETTERS, "somebody else's")
        broker.lpush("nameshot.default", b"null", envelope())

        assert client.classify(origin.url("/owl.png"), LABELS, timeout=TIMEOUT_S).ranking

        eventually(lambda: not broker.keys("nameshot:in-flight:*"), lambda: "a message is still held")
        assert workers.starts == 1
        assert workers.log.count("as a dead letter: ") == 2
