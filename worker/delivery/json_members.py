"""Reads some members of a JSON object strictly and skips the rest, for text that `strict_json` refuses as a whole.

If a client cuts a text in the middle of an emoji, or writes NaN into a header of its own, only that member is unusable.
This reader parses only the wanted members, and those must be strict JSON. It skips the others without recursion, and a
limit on its steps bounds the cost of hostile input to some hundredths of a second of the event loop.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from producer.contract import strict_json
from producer.contract.strict_json import MAX_PARTS, NotStrictJson, parts_of

#: The members to read, by name: None reads the whole value, a mapping reads some members of an object.
Wanted = Mapping[str, "Wanted | None"]

#: The reader gives up after this many steps: one per run of equal brackets, two per member. Clients' messages take some
#: dozens. A text with at most `MAX_PARTS` parts (commas and opening brackets) never reaches the limit, since no part
#: takes more than two steps.
MAX_STEPS: Final = 2 * MAX_PARTS

_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NO_BRACKET: Final = r'[^"\[\]{}]*+'
_BLANKS: Final = " \t\n\r"
_BLANK: Final = re.compile(rf"[{_BLANKS}]*+")
_TEXT: Final = re.compile(_STRING, re.DOTALL)
_ATOM: Final = re.compile(r'[^\s,:"\[\]{}]++')
#: Matches the text up to the next bracket, and the run of brackets of one kind that starts there.
_BRACKETS: Final = re.compile(rf"{_NO_BRACKET}(?:{_STRING}{_NO_BRACKET})*+(?:([\[{{]++)|([\]}}]++))", re.DOTALL)
#: The reader uses a member's name only for comparisons, so control characters in it do no harm.
_LENIENT: Final = json.JSONDecoder(strict=False)


def read_members(data: bytes, wanted: Wanted) -> tuple[dict[str, Any], str]:
    """Read the wanted members of an object as far as they are readable.

    Returns:
        The members that are strict JSON; and the first fault, as a clause without the content. The fault is ``""`` if
        every wanted member that exists was read, and the rest is tolerable JSON of acceptable size.
    """
    text = data.decode(errors="surrogateescape")
    reader = _Reader(text)
    found: dict[str, Any] = {}
    try:
        reader.members(wanted, found)
        if parts_of(data, MAX_PARTS) > MAX_PARTS:
            reader.faults.append("it has too many parts")
            return found, reader.faults[0]
        # The reader has not checked skipped text, in which it let brackets of different kinds close each other.
        json.loads(text, parse_int=float)
    except RecursionError:
        reader.faults.append("it is nested too deeply")
    except _TooManyParts:
        reader.faults.append("it has too many parts")
    except ValueError:
        reader.faults.append("it is not JSON")
    return found, next(iter(reader.faults), "")


class _TooManyParts(ValueError):
    """Raised when the reader reaches its limit of steps."""


class _Reader:
    """Scans a text once, from its start.

    Attributes:
        faults: the faults of wanted members, in the order in which they were found.
    """

    def __init__(self, text: str) -> None:
        self.faults: list[str] = []
        self._text = text
        self._at = 0
        self._steps = 0
        #: The wanted members together may have this many more parts.
        self._parts_left = MAX_PARTS

    def members(self, wanted: Wanted, found: dict[str, Any]) -> None:
        """Read the wanted members of the object that begins here, and move past it.

        Raises:
            ValueError: no object begins here, or the text is malformed or takes too many steps.
        """
        seen: set[str] = set()
        self._expect("{")
        if self._next() == "}":
            self._at += 1
            return
        while True:
            self._step(2)
            name = self._match(_TEXT)
            name = str(_LENIENT.decode(name)) if "\\" in name else name[1:-1]
            self._expect(":")
            if name not in wanted:
                self._skip()
            elif name in seen:
                self.faults.append("it holds a name twice")
                self._read_again(name, wanted[name], found)
            else:
                seen.add(name)
                self._read(name, wanted[name], found)
            if self._next() == "}":
                self._at += 1
                return
            self._expect(",")

    def _read(self, name: str, parts: Wanted | None, found: dict[str, Any]) -> None:
        if parts is not None and self._next() == "{":
            self.members(parts, found.setdefault(name, {}))
            return
        start = self._at
        self._skip()
        if parts is not None:
            return  # the value is not an object, so it has none of the members
        value = self._text[start : self._at].encode(errors="surrogateescape")
        try:
            found[name] = strict_json.loads(value, max_parts=self._parts_left)
            self._parts_left -= parts_of(value, self._parts_left) if value[:1] in b"[{" else 0
        except NotStrictJson as error:
            self.faults.append(str(error))

    def _read_again(self, name: str, parts: Wanted | None, found: dict[str, Any]) -> None:
        """Read a repeated member, and keep it only if both values are equal: parsers disagree on which one counts."""
        again: dict[str, Any] = {}
        self._read(name, parts, again)
        if name not in found or again.get(name) != found[name]:
            found.pop(name, None)

    def _skip(self) -> None:
        """Move past the value that begins here."""
        begins = self._next()
        if begins not in "[{":
            self._match(_TEXT if begins == '"' else _ATOM)
            return
        depth = 0
        while True:
            self._step(1)
            if (found := _BRACKETS.match(self._text, self._at)) is None:
                raise ValueError("it ends before its brackets do")
            self._at = found.end()
            if found[1]:
                depth += len(found[1])
            elif len(found[2]) < depth:
                depth -= len(found[2])
            else:
                self._at = found.start(2) + depth
                return

    def _next(self) -> str:
        """Skip whitespace and return the next character without consuming it."""
        if (begins := self._text[self._at : self._at + 1]) not in _BLANKS:
            return begins
        self._match(_BLANK)
        return self._text[self._at : self._at + 1]

    def _expect(self, mark: str) -> None:
        if self._next() != mark:
            raise ValueError(f"expected {mark}")
        self._at += 1
        self._next()

    def _match(self, pattern: re.Pattern[str]) -> str:
        if (found := pattern.match(self._text, self._at)) is None:
            raise ValueError("it is not JSON")
        self._at = found.end()
        return found[0]

    def _step(self, count: int) -> None:
        self._steps += count
        if self._steps > MAX_STEPS:
            raise _TooManyParts
