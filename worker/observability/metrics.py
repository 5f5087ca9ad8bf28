"""A worker process's metrics of its jobs and images, for Prometheus.

No metric has a URL, a host or a candidate label as a label value.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from producer.contract.result import Result

#: The buckets range from the shortest decoding time (1 ms) to the time limit of a job (60 s).
STAGE_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Telemetry:
    """The metrics of one worker process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.registry = registry
        self._images = Counter(
            "nameshot_images", "Images by outcome: ok, an error code, or cancelled", ["code"], registry=registry
        )
        self._jobs = Counter(
            "nameshot_jobs", "Jobs by answer: ok, an error code, cancelled, or expired", ["code"], registry=registry
        )
        self._stages = Histogram(
            "nameshot_stage_duration_seconds",
            "Seconds that an image with a ranking spent in each stage",
            ["stage"],
            buckets=STAGE_BUCKETS_S,
            registry=registry,
        )
        self._batches = Histogram(
            "nameshot_batch_size",
            "Number of images in the forward pass that processed each image",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )

    def succeeded(self, result: Result) -> None:
        """Count one image with a ranking, and record the durations of its stages."""
        self._images.labels("ok").inc()
        timings = result.timings_ms
        stages = [("queued", timings.queued), ("fetch", timings.fetch), ("wait", timings.wait)]
        if result.batch_size:  # an image with a cached embedding is neither decoded nor in a batch
            self._batches.observe(result.batch_size)
            stages += [("decode", timings.decode), ("forward", timings.forward)]
        for stage, duration_ms in stages:
            if duration_ms is not None:
                self._stages.labels(stage).observe(duration_ms / 1000)

    def failed(self, code: str) -> None:
        """Count one image without a ranking, by its error code or ``cancelled``."""
        self._images.labels(code).inc()

    def answered(self, code: str) -> None:
        """Count one answered job, of one image or of many."""
        self._jobs.labels(code).inc()
