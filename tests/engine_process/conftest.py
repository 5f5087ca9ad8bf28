"""Fixtures: ``nameshot worker --processes`` with a real small model, and an engine with fronts in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.conftest import origin, start_worker
from tests.engine_process.engines import Engines, GatedModel
from tests.engine_process.kept_engine import KeptEngine
from tests.eventually import eventually
from tests.model.conftest import checkpoint, loaded, pipeline
from worker.model import Model

__all__ = ["checkpoint", "loaded", "origin", "pipeline", "start_worker"]


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    """Engines on this test's own path, and enough threads for its requests."""
    with ThreadPoolExecutor(32) as threads:
        engines = Engines(tmp_path, threads)
        yield engines
        engines.close()


@pytest.fixture
def model(loaded: Callable[[str], Model]) -> Iterator[GatedModel]:
    """A real model whose forward passes the test may hold."""
    model = GatedModel(loaded("clip"))
    yield model
    model.may_run.set()


@pytest.fixture
def engine(engines: Engines, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[KeptEngine]:
    engine = KeptEngine(engines.path, tmp_path, getattr(request, "param", 1))
    eventually(engines.listens, lambda: engine.log)
    yield engine
    engine.close()
