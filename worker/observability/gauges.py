"""The metrics of a worker's engine, caches and fetcher, which are read at each request of `/metrics`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import CounterMetricFamily as Count
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from worker.embeddings.image_cache import ImageEmbeddings
from worker.embeddings.label_cache import LabelCache
from worker.embeddings.shared import SharedEmbeddings
from worker.engine.interface import Engine
from worker.fetch import CoalescingFetcher
from worker.fetch.http_cache import CachingFetcher


@dataclass(frozen=True, eq=False)
class PartsCollector(Collector):
    """Collects the metrics. Those of a disabled cache are 0; those of a disabled shared cache are absent."""

    engine: Engine
    labels: LabelCache
    images: ImageEmbeddings
    coalescing: CoalescingFetcher[Any]
    caching: CachingFetcher[Any]
    shared: SharedEmbeddings | None

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its current value."""
        engine, labels, images, caching, shared = self.engine, self.labels, self.images, self.caching, self.shared
        fixed_s, image_s = engine.batch_cost_s
        yield Gauge("nameshot_waiting_images", "Prepared images that wait for the device", engine.waiting)
        yield Gauge("nameshot_device_busy_seconds", "Time that the oldest running batch has taken", engine.busy_s)
        yield Gauge("nameshot_batch_limit", "Largest number of images in a batch", engine.batch_limit)
        yield Gauge("nameshot_batch_fixed_seconds", "Estimated time per batch under load, without its images", fixed_s)
        yield Gauge("nameshot_batch_image_seconds", "Estimated time per image in a batch", image_s)
        yield Count(
            "nameshot_label_cache_hits",
            "Prompts found in the cache, and labels of a set that was found there as a whole",
            labels.hits,
        )
        yield Count("nameshot_label_cache_misses", "Prompts whose embedding was not cached", labels.misses)
        yield Count("nameshot_image_cache_hits", "Images that needed no forward pass of their own", images.hits)
        yield Count(
            "nameshot_image_cache_misses",
            "Images that needed a forward pass of their own; hits and misses stay 0 while the cache is disabled",
            images.misses,
        )
        yield Gauge("nameshot_image_cache_bytes", "Memory of the cached image embeddings", images.kept_bytes)
        yield Count("nameshot_shared_downloads", "Images from another job's download", self.coalescing.shared)
        yield Count("nameshot_http_cache_hits", "Images for which the worker sent no request", caching.hits)
        yield Count(
            "nameshot_http_cache_revalidated",
            "Images that their server confirmed to be unchanged",
            caching.revalidated,
        )
        yield Count("nameshot_http_cache_misses", "Images downloaded while the cache is enabled", caching.misses)
        yield Gauge("nameshot_http_cache_bytes", "Memory of the HTTP cache's entries", caching.kept_bytes)
        if shared is not None:
            yield Count("nameshot_shared_cache_hits", "Embeddings found in Redis", shared.hits)
            yield Count("nameshot_shared_cache_misses", "Embeddings not found in Redis", shared.misses)
            yield Count("nameshot_shared_cache_failures", "Commands to the shared cache that failed", shared.failures)
