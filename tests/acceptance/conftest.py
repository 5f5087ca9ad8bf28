"""The whole system with real parts: Valkey, ``celery -A worker worker``, a picture server, a plain Celery client."""

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from celery import Celery
from PIL import Image

from tests.acceptance.origin import Origin
from tests.acceptance.worker_process import Worker
from tests.model.conftest import checkpoint, pipeline
from tests.valkey_server import ValkeyServer

__all__ = ["checkpoint", "pipeline"]

StartWorker = Callable[..., Worker]


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    """A web server with pictures, missing files and other responses that a foreign server may give."""
    with Origin() as origin:
        origin.pages["/owl.png"] = ("image/png", picture("PNG", (320, 240), "saddlebrown"))
        origin.pages["/car.jpg"] = ("image/jpeg", picture("JPEG", (200, 300), "crimson"))
        yield origin


@pytest.fixture(scope="module")
def start_worker(
    valkey_of_this_run: ValkeyServer, origin: Origin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartWorker]:
    """Start workers on the shared Valkey; they end after the module's last test."""
    with ExitStack() as stack:

        def start(
            model: Path | str, command: tuple[str, ...] = (), prefix: str = "nameshot", **settings: str
        ) -> Worker:
            folder = tmp_path_factory.mktemp("worker")
            return stack.enter_context(
                Worker(
                    folder,
                    {
                        **valkey_of_this_run.settings("worker", prefix),
                        "NAMESHOT_MODEL": str(model),
                        "NAMESHOT_FETCH_ALLOW": f"127.0.0.1/32:{origin.port}",
                        "NAMESHOT_METRICS_PORT": "0",
                        **settings,
                    },
                    command,
                )
            )

        yield start


@pytest.fixture(scope="module")
def worker(start_worker: StartWorker, checkpoint: Callable[[str], Path]) -> Worker:
    """One ready worker with a small CLIP."""
    # A batch waits for further images, so that the speed of decoding on this machine does not decide its size.
    worker = start_worker(checkpoint("clip"), NAMESHOT_MAX_WAIT_MS="200")
    worker.wait_until_ready()
    return worker


@pytest.fixture
def plain(valkey_of_this_run: ValkeyServer) -> Iterator[Celery]:
    """A plain Celery client that has only the URLs of the broker and the result backend."""
    app = Celery("somebody-else", broker=valkey_of_this_run.broker_url, backend=valkey_of_this_run.result_backend)
    yield app
    app.close()


@pytest.fixture
def operator(valkey_of_this_run: ValkeyServer) -> Iterator[Celery]:
    """A plain Celery client in the worker's role, which remote control requires."""
    worker = {"broker": valkey_of_this_run.url(0, "worker"), "backend": valkey_of_this_run.url(1, "worker")}
    with Celery("operator", **worker, set_as_current=False) as app:
        yield app


def picture(kind: str, size: tuple[int, int], colour: str) -> bytes:
    """Return a picture file: a coloured disc on a gradient, so that a model distinguishes any two."""
    image = Image.radial_gradient("L").resize(size).convert("RGB")
    image.paste(colour, (size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()
