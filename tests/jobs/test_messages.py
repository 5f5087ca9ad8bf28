"""A worker reads any message as a job, or refuses it with a short reason."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.contract.image_url import MAX_URL_CHARACTERS
from producer.contract.job import MAX_IMAGES_PER_MESSAGE, ClassifyJob, ClassifyManyJob
from producer.contract.labels import MAX_LABELS, MAX_LABELS_BYTES, MAX_TEMPLATE_CHARACTERS, MAX_TEMPLATES
from producer.contract.strict_json import MAX_PARTS, parts_of
from producer.errors import InvalidJob
from producer.messages.envelope import canonical_json, celery_message
from tests.messages.dated import dated
from worker.delivery.envelope import MAX_MESSAGE_BYTES, read_envelope
from worker.jobs.messages import Malformed, TaskMessage, read_message

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KWARGS = {"image": "http://10.0.0.1/owl.png", "candidate_labels": ["fox", "🦉"]}
CANVAS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


def message(
    headers: object = None, body: object = None, properties: object = None, content_type: object = "application/json"
) -> bytes:
    """Return a message as the simplest Celery clients send it, with the given parts replaced."""
    text = json.dumps([[], KWARGS, CANVAS] if body is None else body)
    envelope = {
        "body": base64.b64encode(text.encode()).decode(),
        "content-type": content_type,
        "content-encoding": "utf-8",
        "headers": {"task": "nameshot.classify", "id": "an-id"} if headers is None else headers,
        "properties": {"body_encoding": "base64"} if properties is None else properties,
    }
    return json.dumps(envelope).encode()


def read(raw: bytes) -> TaskMessage | None:
    """Read a message as a worker does; return None if it has no envelope."""
    envelope = read_envelope(raw, tag="a-tag", queue="nameshot.default")
    if envelope is None:
        return None
    assert isinstance(envelope["headers"]["task"], str)
    return read_message(envelope["headers"], envelope["content-type"], envelope["body"], NOW)


def fault(**parts: object) -> str:
    with pytest.raises(Malformed) as caught:
        read(message(**parts))
    return str(caught.value)


def headers(**more: object) -> dict[str, object]:
    return {"task": "nameshot.classify", "id": "an-id", **more}


#: Headers of Celery 5.2 to 5.7 and of celery.node, whose values do not matter.
IGNORED = {
    "lang": "js",
    "shadow": "nameshot.classify_many",
    "group": "a-group",
    "group_index": 3,
    "retries": 7,
    "timelimit": [1, 1],
    "root_id": "another-id",
    "parent_id": "a-parent",
    "argsrepr": "('http://x.example/secret',)",
    "kwargsrepr": "{}",
    "origin": "gen1@host",
    "ignore_result": True,
    "replaced_task_nesting": 2,
    "stamped_headers": ["a"],
    "stamps": {"a": "b"},
    "x-anything": {"of": ["others"]},
}


def test_only_headers_that_matter_are_passed_on_to_celery() -> None:
    found = read(message(headers(**IGNORED, eta=None, expires="2026-03-01T13:00:00.000Z", nameshot_sent_at=1.5)))

    assert found is not None
    assert (found.args, found.kwargs, found.not_before) == ([], KWARGS, None)
    assert found.headers == {
        "id": "an-id",
        "task": "nameshot.classify",
        "expires": "2026-03-01T13:00:00+00:00",
        "argsrepr": "…",
        "kwargsrepr": "…",
        "nameshot_sent_at": 1.5,
        "nameshot_retries": 0,
        "nameshot_request_id": None,
        "nameshot_taken": found.headers["nameshot_taken"],
    }


@pytest.mark.parametrize(
    ("value", "kept"),
    [("a-Request.1", True), ("", False), ("x" * 65, False), ("a b", False), ("a\n", False), (7, False)],
)
def test_only_a_request_id_that_may_be_logged_is_kept(value: object, kept: bool) -> None:
    found = read(message(headers(nameshot_request_id=value)))

    assert found is not None
    assert found.headers["nameshot_request_id"] == (value if kept else None)


@pytest.mark.parametrize("name", ["get", "update", "headers", "_children", "delivery_info", "callbacks", "properties"])
def test_no_header_can_replace_an_attribute_of_celery_s_request(name: str) -> None:
    found = read(message(headers(**{name: "a stranger's"})))

    assert found is not None
    assert name not in found.headers


@pytest.mark.parametrize("embed", [None, {}, CANVAS, {"callbacks": [], "chain": [], "x": 1}])
def test_a_message_with_an_empty_canvas_is_a_job(embed: object) -> None:
    assert read(message(body=[[], KWARGS, embed]))


@pytest.mark.parametrize("name", list(CANVAS))
def test_a_canvas_that_would_make_the_worker_publish_tasks_is_refused(name: str) -> None:
    assert fault(body=[[], KWARGS, {**CANVAS, name: [{"task": "stranger.task"}]}]).startswith(
        f"the field {name} is not accepted"
    )


@pytest.mark.parametrize(
    ("eta", "not_before"),
    [
        (NOW - timedelta(days=9), None),
        (NOW, None),
        (NOW + timedelta(seconds=1), NOW + timedelta(seconds=1)),
        (NOW + timedelta(hours=1), NOW + timedelta(hours=1)),
    ],
)
def test_an_eta_up_to_an_hour_ahead_is_accepted(eta: datetime, not_before: datetime | None) -> None:
    found = read(message(headers(eta=eta.isoformat())))

    assert found is not None
    assert found.not_before == not_before
    assert "eta" not in found.headers, "with an eta Celery would hold the job in memory"


@pytest.mark.parametrize("eta", ["2026-03-01T13:00:01+00:00", "2026-03-01T13:00:01", "9999-12-31T23:59:59-01:00"])
def test_a_later_eta_is_refused(eta: str) -> None:
    assert "eta" in fault(headers=headers(eta=eta))


@pytest.mark.parametrize("value", ["soon", "", 7, True, [], {}, "0001-01-01T00:00:00+23:59"])
@pytest.mark.parametrize("name", ["eta", "expires"])
def test_a_time_that_is_neither_iso_8601_nor_null_is_refused(name: str, value: object) -> None:
    assert fault(headers=headers(**{name: value})) == f"the header {name} is not a time in ISO 8601"


@pytest.mark.parametrize(
    ("parts", "part"),
    [
        ({"headers": headers(id=None)}, "header id"),
        ({"headers": headers(id="x" * 513)}, "header id"),
        ({"headers": headers(id="a\nb")}, "header id"),
        ({"headers": headers(compression="application/x-gzip")}, "its body is compressed"),
        ({"content_type": None}, "application/json"),
        ({"content_type": "application/x-python-serialize"}, "application/json"),
        ({"content_type": ["application/json"]}, "application/json"),
        ({"properties": {}}, "cannot be decoded"),
        ({"properties": {"body_encoding": "rot13"}}, "cannot be decoded"),
        ({"properties": {"body_encoding": ["base64"]}}, "cannot be decoded"),
        ({"body": {"task": "nameshot.classify", "args": [], "kwargs": KWARGS}}, "not [args, kwargs, embed]"),
        ({"body": [[], KWARGS]}, "not [args, kwargs, embed]"),
        ({"body": [{}, KWARGS, {}]}, "not [list, object, object]"),
        ({"body": [[], [], {}]}, "not [list, object, object]"),
        ({"body": [[], KWARGS, []]}, "not [list, object, object]"),
        ({"body": [[], {**KWARGS, "self": 1}, {}]}, "the argument name self is not allowed"),
    ],
)
def test_a_message_that_does_not_have_the_form_of_a_task_is_refused(parts: dict[str, Any], part: str) -> None:
    assert part in fault(**parts)


def test_a_body_may_be_plain_text() -> None:
    envelope = json.loads(message(properties={}))
    envelope["body"] = json.dumps([[], KWARGS, None], ensure_ascii=False)

    assert read(json.dumps(envelope).encode())


def test_the_largest_message_that_the_contract_permits_is_read_although_escapes_enlarge_it() -> None:
    emoji = "🦉"
    labels = [f"{number:04}" + emoji * 8 for number in range(MAX_LABELS_BYTES // 36)]
    kwargs = {
        "images": ["http://x.example/".ljust(MAX_URL_CHARACTERS // 12, emoji)] * MAX_IMAGES_PER_MESSAGE,
        "candidate_labels": labels,
        "hypothesis_template": ["{}".ljust(MAX_TEMPLATE_CHARACTERS, emoji)] * MAX_TEMPLATES,
        "top_k": 1,
    }
    undated = celery_message(
        task="nameshot.classify_many",
        job_id="an-id",
        delivery_tag="a-tag",
        kwargs_json=canonical_json(kwargs),
        queue="nameshot.bulk",
        expires_in_s=3_600,
    )
    written = dated(undated, sent_at_s=1.0, expires_at=NOW + timedelta(hours=1))

    found = read(written)

    assert MAX_MESSAGE_BYTES / 3 < len(written) < MAX_MESSAGE_BYTES / 2
    assert found is not None
    assert ClassifyManyJob.from_message(found.args, found.kwargs).to_kwargs() == kwargs


@pytest.mark.parametrize("text", ["x", ","])
def test_the_message_with_the_most_parts_that_the_contract_permits_is_read(text: str) -> None:
    kwargs = {
        "images": ["http://x.example/".ljust(MAX_URL_CHARACTERS, text)] * MAX_IMAGES_PER_MESSAGE,
        "candidate_labels": [f"{number}".ljust(32, text) for number in range(MAX_LABELS)],
        "hypothesis_template": ["{}".ljust(MAX_TEMPLATE_CHARACTERS, text)] * MAX_TEMPLATES,
        "top_k": 1,
    }
    raw = message(headers(task="nameshot.classify_many", **IGNORED), [[], kwargs, CANVAS])
    found = read(raw)

    assert parts_of(json.dumps(kwargs).encode(), MAX_PARTS) < MAX_PARTS / 10
    assert found is not None
    assert ClassifyManyJob.from_message(found.args, found.kwargs).to_kwargs() == kwargs


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)
HEADERS = st.sampled_from(["id", "task", "eta", "expires", "compression", "nameshot_sent_at", *IGNORED])
ARGUMENTS = st.sampled_from(["image", "images", "candidate_labels", "hypothesis_template", "top_k", "timeout", "x"])


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good message in which one part is replaced by any value."""
    parts: dict[str, Any] = {}
    place = draw(st.sampled_from(["headers", "header", "body", "item", "argument", "canvas", "properties", "type"]))
    value = draw(JSON)
    if place == "header":
        parts["headers"] = headers(**{draw(HEADERS): value})
    elif place == "item":
        body: list[Any] = [[], KWARGS, CANVAS]
        body[draw(st.integers(0, 2))] = value
        parts["body"] = body
    elif place == "argument":
        parts["body"] = [[], {**KWARGS, draw(ARGUMENTS): value}, CANVAS]
    elif place == "canvas":
        parts["body"] = [[], KWARGS, {draw(st.sampled_from(list(CANVAS))): value}]
    else:
        parts["content_type" if place == "type" else place] = value
    return message(**parts)


@given(mutated() | st.binary())
def test_any_message_is_a_job_or_refused_in_one_sentence(raw: bytes) -> None:
    sentence = ""
    try:
        if (found := read(raw)) is not None:
            ClassifyJob.from_message(found.args, found.kwargs)
    except (Malformed, InvalidJob) as error:
        sentence = str(error)
    assert len(sentence.splitlines()) <= 1
