"""Workers with the same model share the embeddings of pictures, whichever command started them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from producer import Client
from tests.acceptance.conftest import StartWorker
from tests.acceptance.origin import Origin
from tests.cli.command import NAMESHOT
from tests.valkey_server import ValkeyServer

PREFIX = "sharing"
SHARED = {"NAMESHOT_SHARED_CACHE_BYTES": "1000000"}
FRONTS = (str(NAMESHOT), "worker", "--processes", "2")


@pytest.mark.thorough  # in `make test`, `tests/embeddings` tests every rule of the shared cache
def test_a_picture_that_another_worker_has_embedded_needs_no_forward_pass(
    start_worker: StartWorker,
    checkpoint: Callable[[str], Path],
    origin: Origin,
    valkey_of_this_run: ValkeyServer,
) -> None:
    owl = f"http://127.0.0.1:{origin.port}/owl.png"
    broker, results = (valkey_of_this_run.url(database, "producer", PREFIX) for database in (0, 1))
    ranked = []
    with Client(broker, results, queue_prefix=PREFIX) as client:
        for command in ((), FRONTS):
            worker = start_worker(checkpoint("clip"), command, PREFIX, **SHARED)
            worker.wait_until_ready()
            ranked.append(client.classify(owl, ["an owl", "a fox"], timeout=60))
            assert worker.stop() == 0

    assert [result.batch_size for result in ranked] == [1, 0]
    assert ranked[1].ranking == ranked[0].ranking
    assert ranked[1].image == ranked[0].image
