"""Strict JSON compared with Python's parser: both read accepted texts alike, and each refusal has a true reason."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable

from producer.contract.strict_json import MAX_DEPTH, MAX_INTEGER_CHARACTERS, NotStrictJson, loads
from tests.fuzz.target import Target


def is_json_for_python(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def has_a_name_twice(text: str) -> bool:
    found = False

    def pairs(items: list[tuple[str, object]]) -> None:
        nonlocal found
        found |= len({name for name, _ in items}) < len(items)

    # The repeated name may come before the place where parsing fails.
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(text, object_pairs_hook=pairs)
    return found


def has_a_large_number(text: str) -> bool:
    return any(
        len(number) > MAX_INTEGER_CHARACTERS if re.fullmatch("-?[0-9]+", number) else math.isinf(float(number))
        for number in re.findall(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", text)
    )


#: For each reason to refuse a text, a check that the reason is true.
WITNESSES: dict[str, Callable[[str], bool]] = {
    "it is not JSON": lambda text: not is_json_for_python(text),
    "it is nested too deeply": lambda text: len(re.findall(r"[\[{]", text)) > MAX_DEPTH,
    "it holds NaN or infinity": lambda text: bool(re.search("NaN|Infinity", text)),
    "it holds a number that is too large": has_a_large_number,
    "it holds a name twice": has_a_name_twice,
    "it holds half a surrogate pair": lambda text: bool(re.search(r"\\u[dD][89a-fA-F]", text)),
}


def run(data: bytes) -> bool:
    try:
        value = loads(data)
    except NotStrictJson as refusal:
        reason = str(refusal)
        assert refusal.__cause__ is None
        try:
            text = data.decode()
        except UnicodeDecodeError:
            assert reason == "it is not UTF-8"
            return True
        assert WITNESSES[reason](text), reason
        return True
    text = data.decode()
    # Compare texts, because True == 1 == 1.0.
    assert repr(json.loads(text)) == repr(value)
    assert not has_a_name_twice(text)
    written = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    assert repr(loads(written)) == repr(value)
    return True


def seeds() -> list[bytes]:
    return [
        b'{"a": [1, -2.5e-3, true, false, null, {"b": {}}], "\\u0061b": "\\ud83e\\udd89 \\n"}',
        b'[NaN, -Infinity, 1e999, 18446744073709551616, "\\ud800", "\xf0\x9f\xa6\x89"]',
        b'{"a": 1, "a": 2, "\\u0061": 3}',
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b'{"":' * MAX_DEPTH + b"0" + b"}" * MAX_DEPTH,
        b"18446744073709551615",
        b'\xef\xbb\xbf"\xed\xa0\x80"',
    ]


TARGET = Target(run, seeds)
