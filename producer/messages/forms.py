"""Check and encode once the part of a message that all jobs with the same question share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

from producer.contract.job import Question
from producer.contract.labels import DEFAULT_TEMPLATE
from producer.contract.spelling import CALL, Spelling
from producer.messages.envelope import canonical_json

#: The number of cached questions. Most programs repeat a few questions; the largest possible question takes a megabyte.
REMEMBERED: Final = 32


@dataclass(frozen=True, slots=True)
class QuestionJson:
    """A question's keyword arguments as canonical JSON, with a gap for the image or images."""

    before: str
    after: str

    @classmethod
    def blank(cls, question: Question, name: str) -> Self:
        """Return the JSON with a gap for the value of the argument ``name``."""
        # No label can contain the separator, because JSON escapes quotes inside strings.
        before, _, after = canonical_json({**question.to_kwargs(), name: None}).partition(f'"{name}":null')
        return cls(f'{before}"{name}":', after)

    def filled(self, value: str | list[str]) -> str:
        """Return the keyword arguments as the same JSON text that `canonical_json` would write."""
        return f"{self.before}{canonical_json(value)}{self.after}"


def question_json_of_one(
    labels: object,
    hypothesis_template: object = DEFAULT_TEMPLATE,
    top_k: object = None,
    download_timeout: object = None,
    *,
    spelling: Spelling = CALL,
) -> QuestionJson:
    """Return the JSON for jobs of one image; raises `InvalidJob`."""
    try:
        return _remembered(_plain(labels), _plain(hypothesis_template), top_k, download_timeout, spelling)
    except TypeError:
        # An argument is not hashable or has an unsuitable type; the check raises an error that names the argument.
        question = Question.checked(labels, hypothesis_template, top_k, download_timeout, spelling=spelling)
        return QuestionJson.blank(question, "image")


def _plain(value: Any) -> Any:
    # Copy the strings: the caller may change its list for the next job, and a subclass of str may compare equal to a
    # different text.
    return tuple(map(str.__str__, value)) if isinstance(value, list | tuple) else str.__str__(value)


# The cache is typed, because True equals 1 but is not a valid number here. It does not store errors.
@lru_cache(REMEMBERED, typed=True)
def _remembered(
    labels: object, hypothesis_template: object, top_k: object, download_timeout: object, spelling: Spelling
) -> QuestionJson:
    question = Question.checked(labels, hypothesis_template, top_k, download_timeout, spelling=spelling)
    return QuestionJson.blank(question, "image")
