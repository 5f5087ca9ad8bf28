"""LitServe: one worker process with dynamic batches."""

import os
from collections.abc import Sequence
from typing import Any

import litserve

from benchmarks.peers.model import MAX_BATCH, Classifier, Job, Ranking


class ZeroShot(litserve.LitAPI):
    """Requests are ``{"url": …, "labels": […]}``; responses are rankings."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe's interface
        """Load the model in the worker process."""
        self.model = Classifier()

    def decode_request(self, request: dict[str, Any]) -> Job:
        """Return the job of a request."""
        return request["url"], request["labels"]

    def predict(self, jobs: Sequence[Job]) -> list[Ranking]:
        """Classify a batch."""
        return self.model.classify(jobs)


if __name__ == "__main__":
    api = ZeroShot(max_batch_size=MAX_BATCH, batch_timeout=0.05)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=False)
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False, log_level="warning")
