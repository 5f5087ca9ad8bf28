"""Some members of an object are read as strictly as ever, whatever stands beside them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.contract.test_strict_json import VALUES
from worker.delivery.json_members import read_members

WANTED = {"a": None, "b": {"c": None}}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES, VALUES, st.dictionaries(st.text(), ANYTHING), st.sampled_from([None, 1, "\t"]))
def test_what_is_wanted_is_read_and_the_rest_is_passed(a: Any, c: Any, rest: dict[str, Any], indent: Any) -> None:
    rest = {name: value for name, value in rest.items() if name not in WANTED and name != "c"}
    data = json.dumps({**rest, "a": a, "b": {"c": c, **rest}, "z": rest}, indent=indent).encode()

    assert read_members(data, WANTED) == ({"a": a, "b": {"c": c}}, "")


@given(st.binary() | st.text().map(str.encode) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_have_members_or_a_fault(data: bytes) -> None:
    found, fault = read_members(data, WANTED)

    assert set(found) <= set(WANTED)
    assert len(fault.splitlines()) <= 1


@pytest.mark.parametrize(
    ("data", "found", "fault"),
    [
        (b"{}", {}, ""),
        (b'{"b": 7}', {}, ""),
        (b'{"b": {}}', {"b": {}}, ""),
        (b'{"a": 1} x', {"a": 1}, "it is not JSON"),
        (b'{"a": 1,}', {"a": 1}, "it is not JSON"),
        (b'{"a": NaN, "b": {"c": 1}}', {"b": {"c": 1}}, "it holds NaN or infinity"),
        (b'{"b": {"c": 1}, "b": {"c": 2}}', {}, "it holds a name twice"),
        (b'{"b": {"c": 1}, "b": {"c": 2}, "b": {"c": 1}}', {}, "it holds a name twice"),
        (b'{"b": {"c": 1}, "b": {"c": 1}}', {"b": {"c": 1}}, "it holds a name twice"),
        (b'{"a": 1, "a": 1}', {"a": 1}, "it holds a name twice"),
        (b'{"a": 1, "a": 2, "a": 2}', {}, "it holds a name twice"),
        (b"[1]", {}, "it is not JSON"),
        (b"", {}, "it is not JSON"),
    ],
)
def test_a_fault_leaves_what_was_read(data: bytes, found: dict[str, Any], fault: str) -> None:
    assert read_members(data, WANTED) == (found, fault)
