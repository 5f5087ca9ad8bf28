"""Chosen members of an object are parsed strictly, whatever the other members contain."""

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
def test_wanted_members_are_read_and_all_others_are_skipped(a: Any, c: Any, rest: dict[str, Any], indent: Any) -> None:
    rest = {name: value for name, value in rest.items() if name not in WANTED and name != "c"}
    data = json.dumps({**rest, "a": a, "b": {"c": c, **rest}, "z": rest}, indent=indent).encode()

    assert read_members(data, WANTED) == ({"a": a, "b": {"c": c}}, "")


@given(st.binary() | st.text().map(str.encode) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_give_members_or_a_fault(data: bytes) -> None:
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
def test_members_read_before_a_fault_are_kept(data: bytes, found: dict[str, Any], fault: str) -> None:
    assert read_members(data, WANTED) == (found, fault)
