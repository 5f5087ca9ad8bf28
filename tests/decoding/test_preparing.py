"""Decoding in threads and in processes gives the same pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.chaos.null_model import NullModel
from tests.decoding.conftest import MAX_BYTES, MAX_PIXELS, MakePool, scope
from tests.images.files import encoded, photo
from worker.concurrency.budget import Budget
from worker.decoding.decoder import DecoderOptions
from worker.decoding.preparing import InProcesses, InThreads
from worker.model.geometry import Geometry
from worker.model.pixels import PIXELS

BIG = encoded(photo(1600, 1200), "JPEG")


@pytest.mark.parametrize("gap", [None, 2.0])
def test_threads_and_processes_prepare_the_same_pixels(make_pool: MakePool, gap: float | None) -> None:
    geometry = Geometry(224, Image.Resampling.BICUBIC, (224, 224), reducing_gap=gap)
    model, budget = NullModel(), Budget(10**9, "no memory")
    in_threads = InThreads(model, budget, geometry=geometry, max_pixels=MAX_PIXELS)
    in_processes = InProcesses(model, make_pool(DecoderOptions(MAX_PIXELS, MAX_BYTES, geometry)))

    ours, theirs = (preparing.prepare(BIG, scope()) for preparing in (in_threads, in_processes))

    assert (ours.width, ours.height) == (theirs.width, theirs.height) == (1600, 1200)
    assert np.array_equal(ours.prepared.arrays[PIXELS], theirs.prepared.arrays[PIXELS])
