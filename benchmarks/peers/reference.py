"""The pipeline's own scores, which every contender must return, so that all are known to do the same work."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from benchmarks.peers.failure import PeerFailed
from benchmarks.picture_server import picture

#: The first this many pictures are compared: several, so that mixed-up answers within a batch are detected.
COMPARED = 4
TOLERANCE = 1e-3

#: The scores by label, in the order of the answer.
Answer = Mapping[str, float]


def references(model: Path, label_sets: Sequence[Sequence[str]]) -> Iterator[list[Answer]]:
    """Yield the pipeline's answers for the first pictures, for each set of labels."""
    from transformers import pipeline

    from worker.model.refusals import quiet

    with quiet():
        classifier = pipeline("zero-shot-image-classification", model=str(model))
    images = [Image.open(io.BytesIO(picture(number))) for number in range(COMPARED)]
    for labels in label_sets:
        yield [
            {one["label"]: one["score"] for one in classifier(image, candidate_labels=list(labels))} for image in images
        ]
    del classifier
    gc.collect()


def compare(answer: Answer, expected: Answer) -> None:
    """Raise `PeerFailed` unless an answer has all labels, best first, with every score within `TOLERANCE`."""
    scores = list(answer.values())
    if answer.keys() != expected.keys() or scores != sorted(scores, reverse=True):
        raise PeerFailed("its answer does not have every label once, best first")
    distance = max(abs(answer[label] - score) for label, score in expected.items())
    if distance > TOLERANCE:
        raise PeerFailed(f"a score differs by {distance:.4f} from the pipeline's")
