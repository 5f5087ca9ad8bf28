"""Some members of a JSON object, read strictly, while the rest is skipped.

For what `producer.contract.strict_json` refuses whole.

A client that cuts a text in the middle of an emoji, or writes NaN into a header of its own, hurts only those who read
it. Here only what is asked for is read, and that must be strict. It never recurses, and it gives up after so many
steps that whatever a stranger sends costs the event loop some hundredths of a second.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from producer.contract import strict_json
from producer.contract.strict_json import MAX_PARTS, NotStrictJson, parts_of

#: Which members to read: None for a value, a mapping for an object of which some members are read.
Wanted = Mapping[str, "Wanted | None"]

#: Brackets that are passed before it gives up, and members of objects, each of which costs two; clients send some
#: dozens. It never gives up where no more than `MAX_PARTS` are: none of these takes more than two steps.
MAX_STEPS: Final = 2 * MAX_PARTS

_STRING: Final = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_NO_BRACKET: Final = r'[^"\[\]{}]*+'
_BLANKS: Final = " \t\n\r"
_BLANK: Final = re.compile(rf"[{_BLANKS}]*+")
_TEXT: Final = re.compile(_STRING, re.DOTALL)
_ATOM: Final = re.compile(r'[^\s,:"\[\]{}]++')
#: What stands before the next bracket, and the brackets, of one kind, that follow each other there.
_BRACKETS: Final = re.compile(rf"{_NO_BRACKET}(?:{_STRING}{_NO_BRACKET})*+(?:([\[{{]++)|([\]}}]++))", re.DOTALL)
#: Any Python can do so many; the names are compared, and nothing else is done with them.
_LENIENT: Final = json.JSONDecoder(strict=False)


def read_members(data: bytes, wanted: Wanted) -> tuple[dict[str, Any], str]:
    """Read what can be read of an object.

    Returns:
        The members that were found and are strict JSON; and what is wrong, in a few words without the content: "" when
        all that is wanted and there was read, and the rest is JSON as tolerant readers have it, and not too much.
    """
    text = data.decode(errors="surrogateescape")
    reader = _Reader(text)
    found: dict[str, Any] = {}
    try:
        reader.members(wanted, found)
        if parts_of(data, MAX_PARTS) > MAX_PARTS:
            reader.faults.append("it has too many parts")
            return found, reader.faults[0]
        # What was skipped was not looked at, and brackets of any kind were taken for pairs.
        json.loads(text, parse_int=float)
    except RecursionError:
        reader.faults.append("it is nested too deeply")
    except _TooManyParts:
        reader.faults.append("it has too many parts")
    except ValueError:
        reader.faults.append("it is not JSON")
    return found, next(iter(reader.faults), "")


class _TooManyParts(ValueError):
    """It gives up."""


class _Reader:
    """Goes through a text once.

    Attributes:
        faults: of the members that were wanted, in the order in which they were found.
    """

    def __init__(self, text: str) -> None:
        self.faults: list[str] = []
        self._text = text
        self._at = 0
        self._steps = 0
        #: Of what is wanted.
        self._parts_left = MAX_PARTS

    def members(self, wanted: Wanted, found: dict[str, Any]) -> None:
        """Read the members of the object that begins here, and go behind it.

        Raises:
            ValueError: there is none.
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
                found.pop(name, None)  # which of them is meant, readers disagree about
                self._skip()
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
            return  # no object: it has none of the members
        value = self._text[start : self._at].encode(errors="surrogateescape")
        try:
            found[name] = strict_json.loads(value, max_parts=self._parts_left)
            self._parts_left -= parts_of(value, self._parts_left) if value[:1] in b"[{" else 0
        except NotStrictJson as error:
            self.faults.append(str(error))

    def _skip(self) -> None:
        """Go behind the value that begins here."""
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
        """What comes after blanks; it stays where it is."""
        if (begins := self._text[self._at : self._at + 1]) not in _BLANKS:
            return begins
        self._match(_BLANK)
        return self._text[self._at : self._at + 1]

    def _expect(self, mark: str) -> None:
        if self._next() != mark:
            raise ValueError(f"no {mark} where one belongs")
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
