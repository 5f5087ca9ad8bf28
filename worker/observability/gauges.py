"""The metrics of a worker's parts, read at each request of `/metrics`."""

from __future__ import annotations

from typing import Any

from worker.embeddings.of_images import ImageEmbeddings
from worker.embeddings.of_labels import LabelCache
from worker.embeddings.shared import SharedEmbeddings
from worker.engine.interface import Engine
from worker.fetch import CoalescingFetcher
from worker.fetch.http_cache import CachingFetcher
from worker.observability.metrics import Telemetry


def watch(
    telemetry: Telemetry,
    engine: Engine,
    labels: LabelCache,
    images: ImageEmbeddings,
    coalescing: CoalescingFetcher[Any],
    caching: CachingFetcher[Any],
    shared: SharedEmbeddings | None,
) -> None:
    """Add all metrics. Those of disabled caches stay 0, except the shared cache's, which are then left out."""
    telemetry.watch("waiting_images", "Prepared images that wait for the device", lambda: engine.waiting)
    telemetry.watch("device_busy_seconds", "How long the oldest running batch has taken so far", lambda: engine.busy_s)
    telemetry.watch("batch_limit", "Images that a batch may have", lambda: engine.batch_limit)
    telemetry.watch(
        "batch_fixed_seconds", "Learned cost of a batch under load without its images", lambda: engine.batch_cost_s[0]
    )
    telemetry.watch("batch_image_seconds", "Learned cost of each image in a batch", lambda: engine.batch_cost_s[1])
    telemetry.count(
        "label_cache_hits", "Prompts, or labels of a known question, whose embedding was cached", lambda: labels.hits
    )
    telemetry.count("label_cache_misses", "Prompts whose embedding was not cached", lambda: labels.misses)
    telemetry.count("image_cache_hits", "Images that needed no forward pass of their own", lambda: images.hits)
    telemetry.count(
        "image_cache_misses",
        "Images that needed one; neither counts while the cache is disabled",
        lambda: images.misses,
    )
    telemetry.watch("image_cache_bytes", "Memory of the cached image embeddings", lambda: images.kept_bytes)
    telemetry.count("shared_downloads", "Images that another job's download delivered", lambda: coalescing.shared)
    telemetry.count("http_cache_hits", "Fetches that needed no request", lambda: caching.hits)
    telemetry.count(
        "http_cache_revalidated", "Fetches whose image a server confirmed to be unchanged", lambda: caching.revalidated
    )
    telemetry.count("http_cache_misses", "Fetches that downloaded, while the cache is enabled", lambda: caching.misses)
    telemetry.watch("http_cache_bytes", "Memory of the HTTP cache's entries", lambda: caching.kept_bytes)
    if shared is not None:
        telemetry.count("shared_cache_hits", "Embeddings found in Redis", lambda: shared.hits)
        telemetry.count("shared_cache_misses", "Embeddings not found in Redis", lambda: shared.misses)
        telemetry.count("shared_cache_failures", "Calls that Redis did not answer", lambda: shared.failures)
