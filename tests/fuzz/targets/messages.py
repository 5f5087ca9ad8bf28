"""Every message in a queue is read as a job or refused in one sentence."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from datetime import UTC, datetime

from producer.contract.job import ClassifyJob, ClassifyManyJob
from producer.contract.names import CLASSIFY, RETRIES_HEADER, SENT_AT_HEADER
from producer.contract.request_id import REQUEST_ID_HEADER
from producer.errors import InvalidJob
from producer.messages.envelope import canonical_json, celery_message
from tests.fuzz.target import Target
from tests.messages.dated import dated
from worker.delivery.envelope import read_envelope
from worker.delivery.taken import NO_DEATHS, TAKEN_HEADER
from worker.jobs.messages import MAX_ID_CHARACTERS, Malformed, TaskMessage, read_message

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
#: The places for mutated bytes, some of them inside layers of JSON and base64 that mutation would break.
ENVELOPE, BODY, BASE64_BODY, HEADERS, ARGUMENTS = range(5)
KWARGS = b'{"image": "http://h.example/owl.png", "candidate_labels": ["fox", "owl"]}'
MANY_KWARGS = (
    b'{"images": ["http://h.example/owl.png"], "candidate_labels": ["fox", "\xf0\x9f\xa6\x89"],'
    b' "hypothesis_template": ["a {}", "the {}."], "top_k": 1, "timeout": 2.5}'
)
CANVAS = b'{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'
TASK_HEADERS = (
    b'{"task": "nameshot.classify", "id": "an-id", "eta": "2026-03-01T12:10:00Z", "expires": "20260301T13+01",'
    b' "retries": 1, "timelimit": [1, 1], "compression": null, "nameshot_sent_at": 1.5, "stamps": {"a": "b"}}'
)


def envelope_of(place: int, piece: bytes) -> bytes:
    """Return a message with the bytes in one of the places."""
    if place == ENVELOPE:
        return piece
    headers = piece if place == HEADERS else b'{"task": "nameshot.classify", "id": "an-id"}'
    body = b"[[], %s, %s]" % (piece if place == ARGUMENTS else KWARGS, CANVAS)
    if place == BODY:
        written, encoding = json.dumps(piece.decode("latin-1")).encode(), b""
    else:
        written = b'"%s"' % base64.b64encode(piece if place == BASE64_BODY else body)
        encoding = b'"body_encoding": "base64"'
    return b'{"body": %s, "content-type": "application/json", "headers": %s, "properties": {%s}}' % (
        written,
        headers,
        encoding,
    )


def run(data: bytes) -> bool:
    if not data:
        return False
    raw = envelope_of(data[0] % 5, data[1:])
    envelope = read_envelope(raw, tag="a-tag", queue="nameshot.default")
    if envelope is None:
        return True
    assert set(envelope) == {"body", "content-type", "headers", "properties"}
    assert isinstance(envelope["headers"]["task"], str)
    assert envelope["headers"][TAKEN_HEADER].deaths == NO_DEATHS
    try:
        message = read_message(envelope["headers"], envelope["content-type"], envelope["body"], NOW)
        check_message(message)
        for kind in (ClassifyJob, ClassifyManyJob):
            try:
                check_job(kind.from_message(message.args, message.kwargs))
            except InvalidJob as refusal:
                check_sentence(str(refusal))
    except Malformed as refusal:
        check_sentence(str(refusal))
    return True


#: The headers that the worker passes on to Celery, whatever others a message has.
KEPT = {
    *("id", "task", "expires", "argsrepr", "kwargsrepr", SENT_AT_HEADER, RETRIES_HEADER, REQUEST_ID_HEADER),
    TAKEN_HEADER,
}


def check_message(message: TaskMessage) -> None:
    job_id = message.headers["id"]
    assert isinstance(job_id, str)
    assert 0 < len(job_id) <= MAX_ID_CHARACTERS
    assert set(message.headers) == KEPT
    assert message.not_before is None or message.not_before > NOW
    json.dumps({**message.headers, TAKEN_HEADER: asdict(message.headers[TAKEN_HEADER])}, allow_nan=False)
    if message.headers["expires"] is not None:
        assert datetime.fromisoformat(message.headers["expires"]).tzinfo is not None


def check_job(job: ClassifyJob | ClassifyManyJob) -> None:
    """Check that a valid job written as JSON is read back as the same job."""
    kwargs = json.loads(json.dumps(job.to_kwargs(), ensure_ascii=False, allow_nan=False).encode())
    assert type(job).from_message([], kwargs) == job


def check_sentence(text: str) -> None:
    assert text.isprintable(), text
    assert len(text) < 2_000, len(text)
    text.encode()


def seeds() -> list[bytes]:
    undated = celery_message(
        task=CLASSIFY,
        job_id="an-id",
        delivery_tag="a-tag",
        kwargs_json=canonical_json(json.loads(KWARGS)),
        queue="nameshot.bulk",
        expires_in_s=60,
    )
    ours = dated(undated, sent_at_s=1.0, expires_at=NOW)
    pieces = [
        (ENVELOPE, ours),
        (ENVELOPE, envelope_of(HEADERS, TASK_HEADERS)),
        (BODY, b"[[], %s, null]" % KWARGS),
        (BASE64_BODY, b"[[], %s, %s]" % (MANY_KWARGS, CANVAS)),
        (HEADERS, TASK_HEADERS),
        (HEADERS, b'{"id": "an-id", "eta": "0001-01-01T00:00:00+23:59", "expires": "9999-12-31T23:59:59-01:00"}'),
        (ARGUMENTS, KWARGS),
        (ARGUMENTS, MANY_KWARGS),
    ]
    return [bytes([place]) + piece for place, piece in pieces]


TARGET = Target(run, seeds)
