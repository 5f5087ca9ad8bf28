"""How often a model is right about pictures whose labels are known; pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from producer.cli.evaluate.examples import Example
from producer.contract.result import Score
from producer.errors import JobFailed

#: The number of the worst pictures that a report shows.
WORST: Final = 20
#: Besides top-1, a report has the share of the pictures whose own label is among this many first labels.
TOP: Final = 5


def percent(share: float | None) -> str:
    """Return a share as people read it; None is a dash."""
    return "–" if share is None else f"{share:.1%}"


@dataclass(frozen=True, slots=True)
class Judged:
    """A picture, its label, and the ranking that a worker answered."""

    example: Example
    ranking: Sequence[Score]

    @property
    def rank(self) -> int:
        """The rank of the picture's own label, from 1."""
        return 1 + next(place for place, score in enumerate(self.ranking) if score.label == self.example.label)

    @property
    def score(self) -> float:
        """The score of the picture's own label."""
        return self.ranking[self.rank - 1].score


@dataclass(frozen=True, slots=True)
class Failure:
    """A picture that could not be classified, and why."""

    example: Example
    error: JobFailed


@dataclass(frozen=True, slots=True)
class LabelMeasures:
    """The counts of one label.

    Attributes:
        pictures: how many classified pictures have this label.
        right: how many of these pictures have this label first in their ranking.
        named: how many pictures of any label have this label first in their ranking.
    """

    label: str
    pictures: int
    right: int
    named: int

    @property
    def recall(self) -> float | None:
        """``right`` as a share of ``pictures``; None if no picture has this label."""
        return self.right / self.pictures if self.pictures else None

    @property
    def precision(self) -> float | None:
        """``right`` as a share of ``named``; None if the model never ranked this label first."""
        return self.right / self.named if self.named else None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All measures of one run."""

    labels: tuple[str, ...]
    judged: tuple[Judged, ...]
    failures: tuple[Failure, ...]

    @property
    def failed(self) -> Counter[str]:
        """How many pictures failed, by error code."""
        return Counter(failure.error.code for failure in self.failures)

    @property
    def failed_by_code(self) -> str:
        """The error codes of the pictures that failed, the most frequent first, each with its number of pictures."""
        return ", ".join(f"{code}: {count:,}" for code, count in self.failed.most_common())

    def top(self, places: int) -> float | None:
        """Return the share of the classified pictures whose own label is among the first ``places``."""
        if not self.judged:
            return None
        return sum(one.rank <= places for one in self.judged) / len(self.judged)

    def confusion(self) -> Counter[tuple[str, str]]:
        """Count the pairs of a picture's own label and the label that the model ranked first."""
        return Counter((one.example.label, one.ranking[0].label) for one in self.judged)

    def by_label(self) -> list[LabelMeasures]:
        """Return the measures of each label, in the order of the labels."""
        counts = self.confusion()
        pictures, named = Counter[str](), Counter[str]()
        for (own, first), count in counts.items():
            pictures[own] += count
            named[first] += count
        return [LabelMeasures(each, pictures[each], counts[each, each], named[each]) for each in self.labels]

    def worst(self) -> list[Judged]:
        """Return the pictures for which the model ranked another label first, the most confident mistakes first."""
        wrong = [one for one in self.judged if one.rank > 1]
        return sorted(wrong, key=lambda one: one.score - one.ranking[0].score)[:WORST]

    def to_json(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        return {
            "pictures": len(self.judged) + self.failed.total(),
            "classified": len(self.judged),
            "failed": dict(self.failed),
            "failures": [
                {"image": each.example.image, "label": each.example.label, "error": each.error.to_dict()}
                for each in self.failures
            ],
            "top_1": self.top(1),
            "top_5": self.top(TOP),
            "labels": [
                {
                    "label": each.label,
                    "pictures": each.pictures,
                    "right": each.right,
                    "recall": each.recall,
                    "precision": each.precision,
                }
                for each in self.by_label()
            ],
            "confusion": [
                {"label": own, "first": first, "pictures": count}
                for (own, first), count in sorted(self.confusion().items(), key=lambda item: (-item[1], item[0]))
            ],
            "worst": [
                {
                    "image": one.example.image,
                    "label": one.example.label,
                    "rank": one.rank,
                    "score": one.score,
                    "first": one.ranking[0].label,
                    "first_score": one.ranking[0].score,
                }
                for one in self.worst()
            ],
        }
