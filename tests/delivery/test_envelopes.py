"""A worker parses strictly only what it needs of an envelope, and refuses a bad message under its id if it has one."""

import base64
import json
import time

import pytest

from producer.contract import strict_json
from tests.jobs.test_messages import KWARGS, headers, message, read
from worker.delivery.envelope import MAX_MESSAGE_BYTES, read_envelope
from worker.delivery.taken import TAKEN_HEADER
from worker.jobs.messages import Malformed


@pytest.mark.parametrize(
    ("tag", "life"),
    [("2d38af77-0879", "2d38af77-0879"), ("x" * 128, "x" * 128), ("x" * 129, ""), ("a\nb", ""), (7, ""), (None, "")],
)
def test_a_message_s_delivery_tag_is_its_life(tag: object, life: str) -> None:
    found = read(message(properties={"body_encoding": "base64", "delivery_tag": tag}))

    assert found is not None
    assert found.headers[TAKEN_HEADER].life == life


def test_no_header_of_a_message_can_set_its_life() -> None:
    found = read(message(headers(nameshot_taken={"life": "another's", "fault": "a stranger's text"})))

    assert found is not None
    assert (found.headers[TAKEN_HEADER].life, found.headers[TAKEN_HEADER].fault) == ("", "")


#: Texts of a further header that is no strict JSON and that no worker reads.
SLOPPY = [
    '"kwargsrepr": "\\ud83d"',
    '"kwargsrepr": "{\\"image\\": \\ud83d\\u0020"',
    '"x": NaN, "y": [Infinity, -Infinity]',
    '"x": 1, "x": 2',
    '"x": {"id": "a", "id": "b", "task": null}',
    '"x": ' + "[" * 100 + "]" * 100,
    '"x": ' + '{"a":' * 500 + "{}" + "}" * 500,
    '"x": 1' + "0" * 10_000,
    '"x": 1e999',
    '"x": "] } \\" [{", "y": NaN',
]


def with_header(text: str) -> bytes:
    return message().replace(b'"id": "an-id"', b'"id": "an-id", ' + text.encode())


@pytest.mark.parametrize("header", SLOPPY)
def test_headers_that_no_worker_reads_need_not_be_strict_json(header: str) -> None:
    raw = with_header(header)
    with pytest.raises(strict_json.NotStrictJson):
        strict_json.loads(raw)

    found = read(raw)

    assert found is not None
    assert (found.headers["id"], found.kwargs) == ("an-id", KWARGS)


def test_headers_that_no_worker_reads_need_not_be_utf_8() -> None:
    found = read(with_header('"kwargsrepr": "?"').replace(b"?", b"\xff\xed\xa0\x80"))

    assert found is not None
    assert found.headers["id"] == "an-id"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('"eta": NaN', "NaN"),
        ('"eta": "\\ud83d"', "surrogate"),
        ('"task": "nameshot.classify"', "name twice"),
        ('"nameshot_sent_at": 1e999', "too large"),
        ('"x": ' + "[" * 20_000 + "]" * 20_000, "too deeply"),
        ('"x": [}', "not JSON"),
        ('"x": 01', "not JSON"),
        ('"x": "', "not JSON"),
        ('"x": tru', "not JSON"),
    ],
)
def test_a_message_with_a_bad_header_is_refused_under_its_id(text: str, fault: str) -> None:
    raw = with_header(text)
    envelope = read_envelope(raw, tag="a-tag", queue="nameshot.default")

    assert envelope is not None
    assert envelope["headers"]["id"] == "an-id"
    with pytest.raises(Malformed, match=fault):
        read(raw)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_message_in_another_encoding_is_refused_under_its_id(encoding: str) -> None:
    raw = message().decode().encode(encoding)
    envelope = read_envelope(raw, tag="a-tag", queue="nameshot.default", known_as=b"")

    assert envelope is not None
    assert envelope["headers"]["id"] == "an-id"
    assert "Redis cannot read its id" in envelope["headers"][TAKEN_HEADER].fault


def test_a_message_that_repeats_its_id_is_refused_under_it() -> None:
    with pytest.raises(Malformed, match="name twice"):
        read(with_header('"id": "an-id"'))
    assert read_envelope(with_header('"id": "another"'), tag="a-tag", queue="nameshot.default") is None


def test_a_truncated_message_is_refused_under_its_id() -> None:
    whole = json.loads(message())
    raw = json.dumps({"headers": whole["headers"], **whole}).encode()

    for length in (len(raw) - 1, len(raw) - 40, 80):
        with pytest.raises(Malformed, match="not JSON"):
            read(raw[:length])


@pytest.mark.parametrize("own_headers", [{}, None, [], 7])
def test_a_message_in_task_protocol_1_is_refused_under_the_id_in_its_body(own_headers: object) -> None:
    body = {"task": "nameshot.classify", "id": "an-id", "args": [], "kwargs": KWARGS, "utc": True, "x": "?"}
    for text in (json.dumps(body), json.dumps(body).replace('"?"', "NaN")):
        envelope = json.loads(message())
        envelope |= {"headers": own_headers, "body": base64.b64encode(text.encode()).decode()}
        raw = json.dumps(envelope).encode()
        taken = read_envelope(raw, tag="a-tag", queue="nameshot.default")

        assert taken is not None
        assert (taken["headers"]["id"], taken["headers"]["task"]) == ("an-id", "")
        with pytest.raises(Malformed, match="protocol 1"):
            read(raw)


@pytest.mark.parametrize("text", ['"id": "another"', '"\\u0069d": "another"'])
def test_a_message_with_two_different_ids_has_none(text: str) -> None:
    assert read_envelope(with_header(text), tag="a-tag", queue="nameshot.default") is None


def test_a_message_that_is_too_large_for_a_worker_is_refused_under_the_id_that_the_script_found() -> None:
    taken = read_envelope(b"", tag="a-tag an-id", queue="nameshot.default")

    assert taken is not None
    assert taken["headers"]["id"] == "an-id"
    assert "4194304 bytes" in taken["headers"][TAKEN_HEADER].fault
    assert read_envelope(b"", tag="a-tag", queue="nameshot.default") is None


def filled(unit: str) -> str:
    """Return the unit repeated until it fills the largest permitted message."""
    return unit * ((MAX_MESSAGE_BYTES - 1_000) // len(unit))


#: What takes a parser longest, and what makes a regular expression backtrack.
HOSTILE = {
    "brackets": '"x": ' + filled("["),
    "arrays": '"x": [' + filled("[[[[[[[[],[]]]]]]]],") + "1]",
    "pairs of brackets": '"x": NaN, "y": [' + filled("[]{}") + "]",
    "numbers": '"x": [' + filled("1,") + "1]",
    "objects": '"x": [' + filled('{"a":1},') + "1]",
    "strings": '"x": [' + filled('"",') + "1]",
    "half surrogate pairs": '"x": [' + filled('"\\ud83d",') + "1]",
    "members": filled('"x":1,') + '"y": 1',
    "one that is read": '"eta": [' + filled("1,") + "1]",
    "several that are read": ",".join(f'"{name}": [{"[]," * 20_000}1]' for name in ("eta", "expires", "task", "eta")),
    "quotes": '"x": "' + filled('\\"') + '"',
    "quotes without an end": '"x": "' + filled('\\"'),
    "backslashes": '"x": "' + filled("\\\\") + '"',
    "colons": '"x": ' + filled(":"),
    "blanks": '"x": ' + filled(" ") + "1",
    "a string": '"x": "' + filled("a") + '"',
    "a number": '"x": ' + filled("1"),
    "a fraction": '"nameshot_sent_at": 0.' + filled("1"),
    "an exponent": '"x": 1e' + filled("1"),
    "a name": '"x": NaN, "' + filled("\\n") + '": 1',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_hostile_header_occupies_the_event_loop_or_hides_the_id(text: str) -> None:
    raw = with_header(text)
    started_s = time.process_time()
    envelope = read_envelope(raw, tag="a-tag", queue="nameshot.default")
    took_s = time.process_time() - started_s

    assert envelope is not None
    assert envelope["headers"]["id"] == "an-id"
    assert took_s < 0.4


@pytest.mark.parametrize("text", [HOSTILE["arrays"], HOSTILE["numbers"], HOSTILE["members"]])
def test_a_message_of_too_many_parts_is_refused_under_its_id(text: str) -> None:
    with pytest.raises(Malformed, match="too many parts"):
        read(with_header(text))


@pytest.mark.parametrize("unit", ["1,", "[[[[[[[[],[]]]]]]]],", '{"a":1},'])
@pytest.mark.parametrize("body", ["[[%s1], {}, {}]", '[[], {"x": [%s1]}, {}]', "[[], {}, [%s1]]"])
def test_no_hostile_body_occupies_the_event_loop(unit: str, body: str) -> None:
    text = body % (unit * (3_000_000 // len(unit)))
    envelope = {**json.loads(message()), "body": base64.b64encode(text.encode()).decode()}
    raw = json.dumps(envelope).encode()
    started_s = time.process_time()

    with pytest.raises(Malformed, match="too many parts"):
        read(raw)
    assert time.process_time() - started_s < 0.4


@pytest.mark.parametrize("known_as", [b"", b"another"])
def test_a_message_in_which_redis_reads_another_id_or_none_is_refused(known_as: bytes) -> None:
    """Otherwise the worker deaths that the job causes would not be counted under its id."""
    found = [
        read_envelope(message(headers(id="an id")), tag="a-tag", queue="nameshot.default", known_as=known)
        for known in (known_as, b"an\nid")
    ]

    assert found[0] is not None
    assert found[0]["headers"]["id"] == "an id"
    assert "Redis cannot read its id" in found[0]["headers"][TAKEN_HEADER].fault
    assert found[1] is not None
    assert found[1]["headers"][TAKEN_HEADER].fault == ""
