"""The answers: a ranking of the candidate labels, or an error.

``docs/wire-format.md`` describes their JSON forms, which are part of the contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple, Self

from producer.errors import JobFailed


class Score(NamedTuple):
    """One candidate label and its score, a finite float in [0, 1].

    It is a tuple, because a job may have a thousand scores and a frozen dataclass takes more than twice as long to
    create.
    """

    label: str
    score: float


#: Creates a `Score` as `Score._make` does, but without the length check, which more than doubles the time.
_PAIR: Final = partial(tuple.__new__, Score)


def scores_of(pairs: Iterable[tuple[str, float]]) -> list[Score]:
    """Return a `Score` for each pair of label and score, in the order given."""
    return list(map(_PAIR, pairs))


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The image that was classified: its file's digest and size in bytes, its width and height after EXIF rotation."""

    sha256: str
    width: int
    height: int
    format: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Timings:
    """The duration of each stage in milliseconds. ``queued`` is None if the message has no `SENT_AT_HEADER`."""

    queued: float | None
    fetch: float
    decode: float
    wait: float
    forward: float


@dataclass(frozen=True, slots=True)
class Result:
    """The answer for one image.

    Attributes:
        ranking: scores in descending order; equal scores keep the order of the labels.
        model: the checkpoint; ``revision`` is its commit, if known.
        batch_size: the number of images in this image's forward pass; 0 if it needed none, because the worker had
            embedded, or was embedding, an image of the same bytes.
    """

    ranking: list[Score]
    model: str
    revision: str | None
    image: ImageInfo
    batch_size: int
    timings_ms: Timings

    @property
    def best(self) -> Score:
        """The first score of the ranking."""
        return self.ranking[0]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the result backend holds."""
        return {
            "ranking": [{"label": label, "score": score} for label, score in self.ranking],
            "model": self.model,
            "revision": self.revision,
            "image": asdict(self.image),
            "batch_size": self.batch_size,
            "timings_ms": asdict(self.timings_ms),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Parse the JSON object that the result backend holds; ignore fields that a newer worker may have added."""
        image, timings = value["image"], value["timings_ms"]
        return cls(
            ranking=scores_of(map(itemgetter("label", "score"), value["ranking"])),
            model=value["model"],
            revision=value["revision"],
            image=ImageInfo(image["sha256"], image["width"], image["height"], image["format"], image["bytes"]),
            batch_size=value["batch_size"],
            timings_ms=Timings(
                timings["queued"], timings["fetch"], timings["decode"], timings["wait"], timings["forward"]
            ),
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one image of a bulk job: exactly one of ``result`` and ``error`` is set."""

    image: str = field(repr=False)  # its URL may be signed
    result: Result | None = None
    error: JobFailed | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a result."""
        return self.result is not None

    @classmethod
    def from_json(cls, image: str, value: Mapping[str, Any]) -> Self:
        """Parse one element of ``outcomes``; the caller supplies the URL, because an answer never contains one."""
        if (error := value.get("error")) is not None:
            return cls(image, error=JobFailed(error["code"], error["message"], error["retryable"]))
        return cls(image, result=Result.from_json(value))


def error_to_json(error: JobFailed) -> dict[str, Any]:
    """Return the element of ``outcomes`` for an image that failed."""
    return {"error": {"code": error.code, "message": error.message, "retryable": error.retryable}}
