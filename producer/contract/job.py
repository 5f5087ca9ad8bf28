"""The messages of a job: one or several images and their candidate labels.

`ClassifyJob` is the message of ``nameshot.classify``, `ClassifyManyJob` that of ``nameshot.classify_many``.
Clients and workers check the arguments with `Question.checked`, so both apply the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from producer.contract.labels import DEFAULT_TEMPLATE, check_candidate_labels, check_templates
from producer.contract.spelling import ATTRIBUTES, MESSAGE, QUESTION, Spelling
from producer.errors import InvalidJob

MAX_IMAGES_PER_MESSAGE: Final = 64
#: The pauses before the retries double from 5 seconds to ten minutes, so that this many retries take about 40 minutes.
MAX_RETRIES: Final = 10
#: The maximum number of scores in one bulk answer, such as 312 for each of 64 images. It keeps an answer near 1 MB.
MAX_SCORES_PER_MESSAGE: Final = 20_000
#: A worker refuses a message that contains an integer of more than 20 characters.
MAX_TOP_K: Final = 10**20 - 1


@dataclass(frozen=True, slots=True)
class Question:
    """The checked arguments that single and bulk jobs share.

    Attributes:
        candidate_labels: 1 to 1,000 labels, as the user wrote them.
        templates: one hypothesis template, or several for an ensemble.
        top_k: how many of the best labels the answer keeps; None keeps all.
        download_timeout: the total time of the download in seconds; None applies the worker's own limit.
    """

    candidate_labels: list[str]
    templates: list[str] = field(default_factory=lambda: [DEFAULT_TEMPLATE])
    top_k: int | None = None
    download_timeout: float | None = None

    @classmethod
    def checked(
        cls,
        candidate_labels: object,
        hypothesis_template: object = DEFAULT_TEMPLATE,
        top_k: object = None,
        download_timeout: object = None,
        *,
        spelling: Spelling = QUESTION,
    ) -> Self:
        """Check each argument; raise `InvalidJob` with one sentence about the first invalid one."""
        return cls(
            check_candidate_labels(candidate_labels, spelling),
            check_templates(hypothesis_template, spelling),
            _check_top_k(top_k, spelling),
            _check_download_timeout(download_timeout, spelling),
        )

    @property
    def kept_scores(self) -> int:
        """The number of scores in the answer for one image."""
        return min(self.top_k or len(self.candidate_labels), len(self.candidate_labels))

    def to_kwargs(self) -> dict[str, Any]:
        """Return the message's keyword arguments, without defaults, to keep the message small."""
        kwargs: dict[str, Any] = {"candidate_labels": self.candidate_labels}
        if self.templates != [DEFAULT_TEMPLATE]:
            kwargs["hypothesis_template"] = self.templates[0] if len(self.templates) == 1 else self.templates
        if self.top_k is not None:
            kwargs["top_k"] = self.top_k
        if self.download_timeout is not None:
            kwargs["timeout"] = self.download_timeout
        return kwargs


@dataclass(frozen=True, slots=True)
class ClassifyJob:
    """One image and its question: the message of ``nameshot.classify``."""

    image: str = field(repr=False)  # the URL may be signed
    question: Question

    def __post_init__(self) -> None:
        """Check only the types, because a program may also create a job without `from_message`."""
        if not isinstance(self.image, str):
            raise InvalidJob(f"image must be a URL string, not {ATTRIBUTES.kind(self.image)}.")
        if not isinstance(self.question, Question):
            raise InvalidJob(
                f"question must be a Question, not {ATTRIBUTES.kind(self.question)}; "
                "make one of the labels with Question.checked(labels)."
            )

    @classmethod
    def from_message(cls, args: Sequence[object], kwargs: Mapping[str, object]) -> Self:
        """Check the arguments of a message from the broker; raise `InvalidJob` if one is invalid."""
        shared = _shared_arguments(args, kwargs, own="image")
        image = kwargs["image"]
        if not isinstance(image, str):
            raise InvalidJob(f"image must be a URL string, not {MESSAGE.kind(image)}.")
        return cls(image, Question.checked(**shared, spelling=MESSAGE))

    def to_kwargs(self) -> dict[str, Any]:
        """Return the message's keyword arguments."""
        return {"image": self.image, **self.question.to_kwargs()}


@dataclass(frozen=True, slots=True)
class ClassifyManyJob:
    """1 to 64 images that share one question: the message of ``nameshot.classify_many``."""

    images: list[str] = field(repr=False)
    question: Question

    @classmethod
    def from_message(cls, args: Sequence[object], kwargs: Mapping[str, object]) -> Self:
        """Check the arguments of a message from the broker; raise `InvalidJob` if one is invalid."""
        shared = _shared_arguments(args, kwargs, own="images")
        images = kwargs["images"]
        if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
            raise InvalidJob("images must be a list of URL strings.")
        if not 1 <= len(images) <= MAX_IMAGES_PER_MESSAGE:
            raise InvalidJob(f"images must hold 1 to {MAX_IMAGES_PER_MESSAGE} URLs, not {len(images):,}.")
        job = cls(images, Question.checked(**shared, spelling=MESSAGE))
        if (scores := len(images) * job.question.kept_scores) > MAX_SCORES_PER_MESSAGE:
            raise InvalidJob(
                f"{len(images)} images with {job.question.kept_scores:,} scores each make {scores:,} scores; "
                f"set top_k so that at most {MAX_SCORES_PER_MESSAGE:,} are kept."
            )
        return job

    def to_kwargs(self) -> dict[str, Any]:
        """Return the message's keyword arguments."""
        return {"images": self.images, **self.question.to_kwargs()}


def shown_number(number: float) -> str:
    """Return a number as text for a message; Python refuses to convert integers of more than 4,300 digits."""
    if isinstance(number, int) and abs(number) >= 10**20:
        return "a number of more than 20 digits"
    return str(number)


_SHARED_ARGUMENTS: Final = ("candidate_labels", "hypothesis_template", "top_k", "timeout")


def _shared_arguments(args: Sequence[object], kwargs: Mapping[str, object], own: str) -> dict[str, object]:
    if args:
        raise InvalidJob(f"arguments must be given by name ({own}=…, candidate_labels=…), not by position.")
    known = (own, *_SHARED_ARGUMENTS)
    if unknown := sorted(str(name) for name in kwargs if name not in known):
        raise InvalidJob(f"unknown argument {unknown[0][:50]!r}; known are {', '.join(known)}.")
    for name in (own, "candidate_labels"):
        if name not in kwargs:
            raise InvalidJob(f"the argument {name} is missing.")
    shared = {name: kwargs[name] for name in _SHARED_ARGUMENTS if name in kwargs}
    if MESSAGE.download_timeout in shared:
        shared["download_timeout"] = shared.pop(MESSAGE.download_timeout)
    return shared


def _check_top_k(top_k: object, spelling: Spelling) -> int | None:
    if top_k is None:
        return None
    name = spelling.top_k
    if isinstance(top_k, bool) or not isinstance(top_k, int):
        raise InvalidJob(f"{name} must be a whole number or {spelling.nothing}, not {type(top_k).__name__}.")
    if not 1 <= top_k <= MAX_TOP_K:
        raise InvalidJob(f"{name} must be 1 or more and less than 10**20, not {shown_number(top_k)}.")
    return top_k


def _check_download_timeout(timeout: object, spelling: Spelling) -> float | None:
    if timeout is None:
        return None
    name = spelling.download_timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise InvalidJob(f"{name} must be a number of seconds or {spelling.nothing}, not {type(timeout).__name__}.")
    try:
        timeout_s = float(timeout)
    except OverflowError:
        timeout_s = math.inf
    if not math.isfinite(timeout_s) or timeout_s <= 0:
        raise InvalidJob(f"{name} must be more than 0 seconds, not {timeout_s}.")
    return timeout_s
