"""What many jobs share in their messages: checked once, and written once, for equal questions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

from producer.contract import Question
from producer.messages.envelope import canonical_json

#: Questions remembered. A program asks a few over and over; the largest possible takes a megabyte.
REMEMBERED: Final = 32


@dataclass(frozen=True, slots=True)
class QuestionJson:
    """A question's keyword arguments as canonical JSON, with a place for the image or images."""

    before: str
    after: str

    @classmethod
    def blank(cls, question: Question, place: str) -> Self:
        """The form in which the argument of that name is still to be filled in."""
        # A label cannot hold this text: inside a JSON string each quote has a backslash before it.
        before, _, after = canonical_json({**question.to_kwargs(), place: None}).partition(f'"{place}":null')
        return cls(f'{before}"{place}":', after)

    def filled(self, value: str | list[str]) -> str:
        """The keyword arguments as JSON; the same text as `canonical_json` of them."""
        return f"{self.before}{canonical_json(value)}{self.after}"


def question_json_of_one(labels: object, hypothesis_template: object, top_k: object, timeout: object) -> QuestionJson:
    """The form of a job of one image; raises `InvalidJob`."""
    try:
        return _remembered(_plain(labels), _plain(hypothesis_template), top_k, timeout)
    except TypeError:
        # Something is among the arguments that no question holds, and this names it.
        return QuestionJson.blank(Question.checked(labels, hypothesis_template, top_k, timeout), "image")


def _plain(value: Any) -> Any:
    # Its strings as they are now: a caller may use one list again for the next job, with other labels, and a string
    # of a kind of its own may equal what it does not say.
    return tuple(map(str.__str__, value)) if isinstance(value, list | tuple) else str.__str__(value)


# Typed, since True equals 1 and is no number here. Errors are not remembered.
@lru_cache(REMEMBERED, typed=True)
def _remembered(labels: object, hypothesis_template: object, top_k: object, timeout: object) -> QuestionJson:
    return QuestionJson.blank(Question.checked(labels, hypothesis_template, top_k, timeout), "image")
