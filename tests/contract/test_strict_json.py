"""The strict parser accepts only JSON that RFC 8259 permits and that every parser reads alike."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.contract.strict_json import MAX_DEPTH, NotStrictJson, loads

#: Values that every JSON parser reads alike.
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(VALUES, st.booleans())
def test_values_are_read_as_they_were_written(value: Any, ensure_ascii: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value


@given(st.binary() | st.text().map(lambda text: text.encode(errors="surrogatepass")))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value = loads(data)
    except NotStrictJson:
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'"a\nb"', "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"[NaN]", "NaN"),
        (b"-Infinity", "infinity"),
        (b"1e999", "too large"),
        (b"-1e999", "too large"),
        (b"1" + b"0" * 400, "too large"),
        (b"1" + b"0" * 100_000, "too large"),
        (b'{"a": 1, "a": 1}', "name twice"),
        (b'{"a": 1, "\\u0061": 2}', "name twice"),
        (b'"\\ud800"', "surrogate"),
        (b'["\\uDC00"]', "surrogate"),
        (b'{"\\udc00\\ud800": 1}', "surrogate"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "too deeply"),
        (b"[" * 500 + b"]" * 500, "too deeply"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "too deeply"),
        (b"[" * 2_000_000, "too deeply"),
    ],
)
def test_json_that_parsers_read_differently_or_cannot_read_is_refused_at_once(data: bytes, fault: str) -> None:
    started_s = time.monotonic()
    with pytest.raises(NotStrictJson, match=fault):
        loads(data)
    assert time.monotonic() - started_s < 5


@pytest.mark.parametrize(
    "data",
    [b'"\\ud83e\\udd89"', b'"\\\\ud800"', b"18446744073709551615", b"1e308", b"[" * MAX_DEPTH + b"]" * MAX_DEPTH],
)
def test_json_that_only_looks_dangerous_is_read(data: bytes) -> None:
    assert loads(data) == json.loads(data)
