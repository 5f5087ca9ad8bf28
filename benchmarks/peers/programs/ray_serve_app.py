"""Ray Serve: one replica on all cores, with ``@serve.batch``."""

from __future__ import annotations

import asyncio
import os

from ray import serve
from starlette.requests import Request

from benchmarks.peers.model import MAX_BATCH, Classifier, Job, Ranking


# The limit is higher than a batch, because Ray also counts the requests that wait for a batch.
@serve.deployment(max_ongoing_requests=16 * MAX_BATCH, ray_actor_options={"num_cpus": os.cpu_count()})
class ZeroShot:
    """Requests are ``{"url": …, "labels": […]}``; responses are rankings."""

    def __init__(self) -> None:
        self.model = Classifier()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.05)
    async def classify(self, jobs: list[Job]) -> list[Ranking]:
        """Classify a batch outside the event loop, so that Ray collects the next batch meanwhile."""
        return await asyncio.to_thread(self.model.classify, jobs)

    async def __call__(self, request: Request) -> Ranking:
        """Respond to one request."""
        job = await request.json()
        ranking: Ranking = await self.classify((job["url"], job["labels"]))
        return ranking


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(ZeroShot.bind(), blocking=True)  # type: ignore[attr-defined]  # the decorator creates `bind`
