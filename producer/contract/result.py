"""The answers: a ranking of the candidate labels, or an error.

``docs/wire-format.md`` describes their JSON forms, which are part of the contract.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import starmap
from operator import itemgetter
from typing import Any, Self

from producer.errors import JobFailed


# Not frozen, because a job may have a thousand scores, and it takes more than twice as long to create a frozen one.
@dataclass(slots=True, unsafe_hash=True)
class Score:
    """One candidate label and its score, a finite float in [0, 1]."""

    label: str
    score: float

    def __iter__(self) -> Iterator[Any]:
        """Yield label and score, so that ``label, score = result.best`` works."""
        yield self.label
        yield self.score


def scores_of(pairs: Iterable[tuple[str, float]]) -> list[Score]:
    """Return each pair of label and score as a `Score`, in the order given."""
    return list(starmap(Score, pairs))


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
    """The duration of each stage in milliseconds; ``queued`` is None for a job of a plain Celery client."""

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
        attempts: how often workers ran the job; more than 1 only if it was submitted with ``retries``.
    """

    ranking: list[Score]
    model: str
    revision: str | None
    image: ImageInfo
    batch_size: int
    timings_ms: Timings
    attempts: int = 1

    @property
    def best(self) -> Score:
        """The first score of the ranking."""
        return self.ranking[0]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object. Workers store it without ``attempts`` if the job ran only once."""
        return {
            "ranking": [{"label": each.label, "score": each.score} for each in self.ranking],
            "model": self.model,
            "revision": self.revision,
            "image": asdict(self.image),
            "batch_size": self.batch_size,
            "timings_ms": asdict(self.timings_ms),
            "attempts": self.attempts,
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
            attempts=value.get("attempts", 1),
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

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object of the image's URL, and of its result or its error."""
        if self.result is not None:
            return {"image": self.image, "result": self.result.to_dict()}
        return {"image": self.image, "error": None if self.error is None else self.error.to_dict()}

    @classmethod
    def from_json(cls, image: str, value: Mapping[str, Any]) -> Self:
        """Parse one element of ``outcomes``; the caller supplies the URL, because an answer never contains one."""
        if (error := value.get("error")) is not None:
            return cls(image, error=JobFailed(error["code"], error["message"], error["retryable"]))
        return cls(image, result=Result.from_json(value))
