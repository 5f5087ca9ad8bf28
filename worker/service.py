"""Puts one worker process together from its settings: model, engine, fetcher, caches, classifier."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files

from worker.allocator import give_memory_back
from worker.budget import Budget
from worker.capacity import DECODING_BYTES_PER_PIXEL, decoder_processes, default_concurrency, measured_max_batch
from worker.classifier import Classifier
from worker.decoding.pool import DecoderPool
from worker.decoding.preparing import InProcesses, InThreads, Preparing
from worker.decoding.process import Terms
from worker.delivery.fairness import WEIGHTS
from worker.embeddings import ImageEmbeddings, KnownFile
from worker.engine import LocalEngine
from worker.fetch import AllowedAddress, CoalescingFetcher, Fetcher, parse_allow, parse_hosts, parse_ports
from worker.http_cache import CachingFetcher
from worker.images import prepare_pillow
from worker.labels import LabelCache
from worker.model.interface import Model
from worker.settings import WorkerSettings
from worker.telemetry import Telemetry

logger = logging.getLogger(__name__)

#: The name of the toy checkpoint that ships with the project.
BUNDLED = "bundled"


@dataclass(frozen=True)
class Service:
    """What the tasks of a process use, and how much of it they may use.

    Attributes:
        concurrency: images in flight.
        job_timeout_s: seconds from taking a single job to its answer.
    """

    classifier: Classifier
    model: Model
    engine: LocalEngine
    telemetry: Telemetry
    concurrency: int
    max_batch: int
    job_timeout_s: float

    def close(self) -> None:
        """Stop threads, device and connections."""
        self.classifier.close()


def fetch_rules(
    settings: WorkerSettings,
) -> tuple[frozenset[int], tuple[AllowedAddress, ...], tuple[str, ...]]:
    """Ports, exceptions and hosts of the settings.

    Raises:
        SettingsError: one of them cannot be read.
    """
    return parse_ports(settings.fetch_ports), parse_allow(settings.fetch_allow), parse_hosts(settings.fetch_hosts)


def build(settings: WorkerSettings, *, load_model: Callable[..., Model], on_device_lost: Callable[[], None]) -> Service:
    """Load and warm up the model, and everything around it.

    Args:
        load_model: called as `worker.model.load_model` is.
        on_device_lost: as for `LocalEngine`.

    Raises:
        ModelLoadError: the checkpoint cannot be used.
        SettingsError: a fetch setting cannot be read, or no decoder process can be started.
    """
    # The cheap and fallible first: a typo should not cost a model's loading time.
    ports, allow, hosts = fetch_rules(settings)
    give_memory_back()
    prepare_pillow(settings.max_pixels)
    started = time.monotonic()
    logger.info("loading %s", settings.model)
    model = load_model(
        str(files("worker") / "bundled" / "emoji-clip") if settings.model == BUNDLED else settings.model,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
    )
    model.warm_up()
    max_batch = measured_max_batch(model) if settings.max_batch == "auto" else settings.max_batch
    concurrency = (
        default_concurrency(max_batch, model.parallel_batches)
        if settings.concurrency == "auto"
        else settings.concurrency
    )
    engine = LocalEngine(
        model,
        max_batch=max_batch,
        weights=WEIGHTS,
        max_wait_s=settings.max_wait_ms / 1000,
        latency_target_s=settings.latency_target_ms / 1000 or None,
        on_device_lost=on_device_lost,
    )
    labels = LabelCache(engine)
    images = ImageEmbeddings(_preparing(settings, model, concurrency), engine, max_bytes=settings.embedding_cache_bytes)
    fetcher = Fetcher(
        max_bytes=settings.max_bytes,
        timeout_s=settings.fetch_timeout,
        # One host may have half of them, and should find all that it uses at once.
        max_connections=max(concurrency, 2 * min(concurrency, settings.fetch_per_host)),
        per_host=settings.fetch_per_host,
        ports=ports,
        allow=allow,
        hosts=hosts,
    )
    caching = CachingFetcher(fetcher, images.recall, max_bytes=settings.http_cache_bytes)
    downloads = caching if settings.http_cache_bytes else fetcher
    coalescing = CoalescingFetcher[bytes | KnownFile](downloads, settings.fetch_timeout)
    telemetry = Telemetry()
    telemetry.watch("waiting_images", "Prepared images that wait for the device", lambda: engine.waiting)
    telemetry.watch("device_busy_seconds", "How long the running batch has taken so far", lambda: engine.busy_s)
    telemetry.watch("batch_limit", "Images that a batch may have", lambda: engine.batch_limit)
    telemetry.watch("batch_fixed_seconds", "What a batch under load takes, as learned", lambda: engine.batch_cost_s[0])
    telemetry.watch("batch_image_seconds", "What each image adds to it, as learned", lambda: engine.batch_cost_s[1])
    telemetry.count("label_cache_hits", "Prompts whose embedding was known", lambda: labels.hits)
    telemetry.count("label_cache_misses", "Prompts that went through the text tower", lambda: labels.misses)
    telemetry.count("image_cache_hits", "Images that needed no forward pass of their own", lambda: images.hits)
    telemetry.count("image_cache_misses", "Images that did", lambda: images.misses)
    telemetry.watch("image_cache_bytes", "What the image embeddings take that are kept", lambda: images.kept_bytes)
    telemetry.count("shared_downloads", "Images that came with another job's download", lambda: coalescing.shared)
    telemetry.count("http_cache_hits", "Images for which no server was asked", lambda: caching.hits)
    telemetry.count("http_cache_revalidated", "Images that a server called unchanged", lambda: caching.revalidated)
    telemetry.count("http_cache_misses", "Images downloaded while URLs are kept", lambda: caching.misses)
    telemetry.watch("http_cache_bytes", "What is kept of URLs", lambda: caching.kept_bytes)
    classifier = Classifier(
        model=model,
        fetcher=coalescing if settings.fetch_coalesce else downloads,
        images=images,
        labels=labels,
        observer=telemetry,
        concurrency=concurrency,
    )
    logger.info(
        "%s (%s) on %s in %s, ready after %.1f s: batches of %d, %d images in flight",
        model.name,
        model.family,
        model.device,
        model.dtype,
        time.monotonic() - started,
        max_batch,
        concurrency,
    )
    return Service(classifier, model, engine, telemetry, concurrency, max_batch, settings.job_timeout)


def _preparing(settings: WorkerSettings, model: Model, concurrency: int) -> Preparing:
    budget = Budget(
        DECODING_BYTES_PER_PIXEL * settings.max_pixels, "no memory for decoding came free within the job's time."
    )
    geometry = model.geometry
    if geometry is not None:
        geometry = replace(geometry, reducing_gap=settings.reducing_gap)
    elif settings.reducing_gap is not None:
        logger.warning("NAMESHOT_REDUCING_GAP has no effect: %s has a processor of its own", model.name)
    if settings.decoder == "thread":
        return InThreads(model, budget, geometry=geometry, max_pixels=settings.max_pixels)
    terms = Terms(settings.max_pixels, settings.max_bytes, geometry)
    pool = DecoderPool(terms, processes=decoder_processes(concurrency), budget=budget)
    pool.start()
    return InProcesses(model, pool)
