"""BentoML: one worker, adaptive batching, which chooses its wait from what it has measured."""

import bentoml
from pydantic import BaseModel

from benchmarks.peers.model import MAX_BATCH, Classifier


class Job(BaseModel):
    """An image's URL and its labels."""

    url: str
    labels: list[str]


class Score(BaseModel):
    """One label's."""

    label: str
    score: float


@bentoml.service(workers=1, traffic={"timeout": 600})
class ZeroShot:
    """A batchable endpoint takes and returns lists; a client sends one job in its list."""

    def __init__(self) -> None:
        self.model = Classifier()

    # Not a wait but the latency beyond which it answers 503; its default.
    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000)
    def classify(self, jobs: list[Job]) -> list[list[Score]]:
        """A batch."""
        rankings = self.model.classify([(job.url, job.labels) for job in jobs])
        return [[Score(**score) for score in ranking] for ranking in rankings]
