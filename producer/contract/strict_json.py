"""Parse strict JSON (RFC 8259), because the input is untrusted.

Python's own parser accepts NaN, repeated names and lone surrogates, which other programs read differently or cannot
encode.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

#: A task message needs 3 levels: the body, the keyword arguments and the list of labels. The other levels leave room
#: for the headers of other clients, which workers ignore.
MAX_DEPTH: Final = 32
#: A 64-bit integer has at most 20 characters; a longer integer may overflow a float or take long to convert.
MAX_INTEGER_CHARACTERS: Final = 20
#: The maximum number of commas and opening brackets outside of strings in one message; each takes a parser up to two
#: microseconds. A `classify_many` message that uses every limit of the contract has about 1,200: 1,000 labels, 100
#: templates, 64 URLs, and the envelope. Twenty times as many take a twentieth of a second, and leave room for the
#: headers of other clients and for messages that a later check refuses with a more precise error.
MAX_PARTS: Final = 25_000

#: The quantifiers are possessive, so that the regular expression never backtracks.
_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_BETWEEN: Final = rb'[^",\[{]*+'
_TO_NEXT_PART: Final = re.compile(rb"%b(?:%b%b)*+[,\[{]" % (_BETWEEN, _STRING, _BETWEEN), re.DOTALL)


class NotStrictJson(ValueError):
    """The text is not strict JSON; the message says why in a few words, without quoting the text."""


def loads(data: bytes, *, max_parts: int | None = None) -> Any:
    """Parse one JSON text in UTF-8.

    Args:
        max_parts: refuse a text with more parts, as `parts_of` counts them, without parsing it.

    Raises:
        NotStrictJson: the text is not JSON; or it contains NaN, infinity, a name twice, a lone surrogate, an integer
            of more than 20 characters, arrays and objects more than 32 deep, or more than ``max_parts`` parts.
    """
    if max_parts is not None and len(data) > max_parts and parts_of(data, max_parts) > max_parts:
        raise NotStrictJson("it has too many parts")
    try:
        value = _DECODER.decode(data.decode())
    except NotStrictJson:
        raise
    except UnicodeDecodeError:
        raise NotStrictJson("it is not UTF-8") from None
    except RecursionError:
        raise NotStrictJson("it is nested too deeply") from None
    except ValueError:
        raise NotStrictJson("it is not JSON") from None
    # Most messages have too few brackets to be nested deeply, and skip the check.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and not _is_shallow(value):
        raise NotStrictJson("it is nested too deeply")
    # Decoded UTF-8 can contain a surrogate only by an escape; messages without escapes skip the check.
    if b"\\" in data and (b"\\ud" in data or b"\\uD" in data):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise NotStrictJson("it holds half a surrogate pair") from None
    return value


def parts_of(data: bytes, most: int) -> int:
    """Count the commas and opening brackets in the text.

    If there are more than ``most``, count only those outside of strings, and stop at ``most`` + 1. The count ends at
    an unterminated string, because a parser stops there too.
    """
    if (in_all := data.count(b",") + data.count(b"[") + data.count(b"{")) <= most:
        return in_all
    parts, at = 0, 0
    while parts <= most and (found := _TO_NEXT_PART.match(data, at)) is not None:
        parts, at = parts + 1, found.end()
    return parts


def _constant(_name: str) -> Any:
    raise NotStrictJson("it holds NaN or infinity")


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotStrictJson("it holds a number that is too large")
    return number


def _int(digits: str) -> int:
    if len(digits) > MAX_INTEGER_CHARACTERS:
        raise NotStrictJson("it holds a number that is too large")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise NotStrictJson("it holds a name twice")
    return value


def _is_shallow(value: object) -> bool:
    """Return whether arrays and objects are nested at most `MAX_DEPTH` deep.

    The function does not recurse, because deeply nested input would exhaust the stack.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            if isinstance(container, list | dict)
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, list | dict)
        ]
        if not level:
            return True
    return False


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
)
