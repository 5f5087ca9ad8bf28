"""Builds the parts of a worker process from its settings: model, engine, fetcher, caches, classifier."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from producer.broker.urls import Endpoint, endpoint
from worker.classifier import Classifier
from worker.concurrency.budget import Budget
from worker.concurrency.isolation import Isolation
from worker.concurrency.shares import of_places
from worker.decoding.decoder import DecoderOptions
from worker.decoding.images import prepare_pillow
from worker.decoding.pool import DecoderPool
from worker.decoding.preparing import InProcesses, InThreads, Preparing
from worker.downloads import build_fetchers, fetch_policy
from worker.embeddings.image_cache import Embedding, ImageEmbeddings
from worker.embeddings.label_cache import LabelCache
from worker.embeddings.shared import SharedEmbeddings
from worker.engine.capacity import BULK_TIME_FACTOR, DECODING_BYTES_PER_PIXEL, decoder_processes, default_concurrency
from worker.engine.device import checkpoint, load_engine
from worker.engine.interface import Engine
from worker.engine.stages import Stages
from worker.engine_process.info import EngineInfo
from worker.engine_process.link import ask_info
from worker.engine_process.remote import RemoteEngine, RemoteModel
from worker.fetch import CoalescingFetcher
from worker.fetch.files import File, KnownFile
from worker.fetch.http_cache import CachingFetcher
from worker.model import load_preparation
from worker.model.identity import identity
from worker.model.interface import HostModel, Model
from worker.model.pixels import Preparation
from worker.observability.gauges import PartsCollector
from worker.observability.metrics import Telemetry
from worker.runtime.allocator import bound_malloc
from worker.runtime.shortages import allow_open_files
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

#: A front polls at this interval while the engine loads its model, which takes seconds to minutes.
ENGINE_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Front:
    """The configuration of a front, which is a worker that uses the device of an engine process.

    Attributes:
        socket: the path of the engine's socket.
        fronts: the number of fronts that share the engine.
    """

    socket: Path
    fronts: int


@dataclass(frozen=True)
class Service:
    """The parts of a worker process that its tasks use, with their limits.

    Attributes:
        concurrency: the largest number of images in flight.
        device_limit_s: the time after which a batch counts as stuck and this process ends, in seconds; infinite for a
            front, because the engine process checks its own batches.
        job_timeout_s: the time limit of a single job, in seconds.
    """

    classifier: Classifier
    model: HostModel
    engine: Engine
    telemetry: Telemetry
    concurrency: int
    device_limit_s: float
    job_timeout_s: float

    def close(self) -> None:
        """Stop all threads, including the device's, and close all connections."""
        self.classifier.close()


def shared_cache_server(settings: WorkerSettings) -> Endpoint:
    """Return the Redis for shared embeddings; raise `SettingsError` for an invalid Redis URL."""
    if settings.shared_cache_url:
        return endpoint(settings.shared_cache_url, "NAMESHOT_SHARED_CACHE_URL")
    return endpoint(settings.result_backend, "NAMESHOT_RESULT_BACKEND")


def build(
    settings: WorkerSettings,
    *,
    load_model: Callable[..., Model],
    on_device_lost: Callable[[], None],
    front: Front | None = None,
    load_preparation: Callable[..., Preparation] = load_preparation,
    on_other_model: Callable[[], None] = lambda: None,
    isolation: Isolation | None = None,
    now_s: Callable[[], float] = time.time,
) -> Service:
    """Load and warm up the model, or wait until the engine process has loaded it, and build the parts that use it.

    Args:
        settings: the worker's settings.
        load_model: called with the arguments of `worker.model.load_model`.
        on_device_lost: as for `LocalEngine`.
        front: the front's configuration; None if this process runs the model itself.
        load_preparation: for fronts only; called with the arguments of `worker.model.load_preparation`.
        on_other_model: for fronts only; as for `RemoteEngine`.
        isolation: the lock that lets the risky stages of a suspect run alone.
        now_s: returns the seconds since the epoch, by which uploads' tokens expire.

    Raises:
        ModelLoadError: the checkpoint cannot be used.
        SettingsError: a setting cannot be used, the system permits too few open files, or no decoder process can be
            started.
    """
    prepare_pillow(settings.max_pixels)
    # Settings come first, so that the operator sees an error in them before the model has loaded.
    policy = fetch_policy(settings)
    server = shared_cache_server(settings)
    stages = Stages(isolation)
    model, engine, concurrency = (
        _own_device(settings, load_model, on_device_lost, stages)
        if front is None
        else _engine_process(settings, front, load_preparation, on_other_model)
    )
    fetchers, kept_downloads = build_fetchers(settings, policy, concurrency, now_s)
    allow_open_files(concurrency, kept_downloads)
    labels = LabelCache(engine)
    # Create the shared cache only if it is used: for a checkpoint in a folder, its key requires reading all files.
    is_shared = settings.shared_cache_bytes and settings.embedding_cache_bytes
    shared = _shared_embeddings(settings, server, model) if is_shared else None
    images = ImageEmbeddings(
        _preparing(settings, model, concurrency, front.fronts if front else 1, stages),
        engine,
        max_bytes=settings.embedding_cache_bytes,
        shared=shared,
    )
    caching = CachingFetcher(fetchers, images.recall, max_bytes=settings.http_cache_bytes)
    downloads = caching if settings.http_cache_bytes else fetchers
    coalescing = CoalescingFetcher[File | KnownFile[Embedding]](downloads, settings.fetch_timeout)
    telemetry = Telemetry()
    telemetry.registry.register(PartsCollector(engine, labels, images, coalescing, caching, shared))
    classifier = Classifier(
        model=model,
        fetcher=coalescing if settings.fetch_coalesce else downloads,
        images=images,
        labels=labels,
        telemetry=telemetry,
        concurrency=concurrency,
    )
    logger.info("at most %d images in flight", concurrency)
    device_limit_s = BULK_TIME_FACTOR * settings.job_timeout if front is None else math.inf
    return Service(classifier, model, engine, telemetry, concurrency, device_limit_s, settings.job_timeout)


def _own_device(
    settings: WorkerSettings, load_model: Callable[..., Model], on_device_lost: Callable[[], None], stages: Stages
) -> tuple[HostModel, Engine, int]:
    model, engine = load_engine(settings, load_model=load_model, on_device_lost=on_device_lost, stages=stages)
    return model, engine, _concurrency(settings, engine.max_batch, model.parallel_batches)


def _engine_process(
    settings: WorkerSettings,
    front: Front,
    load_preparation: Callable[..., Preparation],
    on_other_model: Callable[[], None],
) -> tuple[HostModel, Engine, int]:
    bound_malloc()
    logger.info("waiting for the engine")
    info = _engine_info(front.socket)
    model = RemoteModel(info, lambda: load_preparation(checkpoint(settings.model), info.revision, info.family))
    # With ``auto``, all fronts together have about as many images in flight as one worker would have.
    concurrency = _concurrency(settings, info.max_batch, info.parallel_batches, front.fronts)
    engine = RemoteEngine(front.socket, info, slots=concurrency, on_other_model=on_other_model)
    return model, engine, concurrency


def _engine_info(socket: Path) -> EngineInfo:
    """Wait without a time limit until the engine has loaded its model, and return the engine's information."""
    while True:
        try:
            return ask_info(socket)
        except OSError:
            time.sleep(ENGINE_POLL_S)


def _shared_embeddings(settings: WorkerSettings, server: Endpoint, model: HostModel) -> SharedEmbeddings:
    same = identity(model, checkpoint(settings.model), reducing_gap=settings.reducing_gap)
    key = f"{settings.queue_prefix}:embeddings:{same}"
    return SharedEmbeddings(server, key, max_bytes=settings.shared_cache_bytes)


def _concurrency(settings: WorkerSettings, max_batch: int, parallel_batches: int, fronts: int = 1) -> int:
    if settings.concurrency != "auto":
        return settings.concurrency
    return default_concurrency(max_batch, parallel_batches, fronts)


def _preparing(
    settings: WorkerSettings, model: HostModel, concurrency: int, processes: int, stages: Stages
) -> Preparing:
    budget = Budget(of_places(DECODING_BYTES_PER_PIXEL * settings.max_pixels))
    geometry = model.geometry
    if geometry is not None:
        geometry = replace(geometry, reducing_gap=settings.reducing_gap)
    elif settings.reducing_gap is not None:
        logger.warning(
            "NAMESHOT_REDUCING_GAP has no effect: the image processor of %s does more than resize and crop; unset the "
            "variable",
            model.name,
        )
    if settings.decoder == "thread":
        return InThreads(model, budget, geometry=geometry, max_pixels=settings.max_pixels, stages=stages)
    options = DecoderOptions(settings.max_pixels, settings.max_bytes, geometry)
    pool = DecoderPool(options, processes=decoder_processes(concurrency, processes), budget=budget)
    pool.start()
    return InProcesses(model, pool, stages)
