"""BentoML: one worker with adaptive batching, which chooses its wait from its own measurements."""

import bentoml
from pydantic import BaseModel

from benchmarks.peers.model import MAX_BATCH, Classifier


class Job(BaseModel):
    """An image's URL and its labels."""

    url: str
    labels: list[str]


class Score(BaseModel):
    """The score of one label."""

    label: str
    score: float


@bentoml.service(workers=1, traffic={"timeout": 600})
class ZeroShot:
    """A service whose batchable endpoint takes and returns lists; a client sends a list with one job."""

    def __init__(self) -> None:
        self.model = Classifier()

    # `max_latency_ms` is not a wait: beyond this latency, its default, BentoML responds with 503.
    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000)
    def classify(self, jobs: list[Job]) -> list[list[Score]]:
        """Classify a batch."""
        rankings = self.model.classify([(job.url, job.labels) for job in jobs])
        return [[Score(**score) for score in ranking] for ranking in rankings]
