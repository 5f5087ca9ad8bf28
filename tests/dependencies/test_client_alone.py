"""In a separate environment the client works without Celery, and beside an older Celery."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.valkey_server import ValkeyServer

ROOT = Path(__file__).parents[2]
#: An environment that is kept between runs, because it has some thirty packages from PyPI; new dependencies renew it.
KEPT = ROOT / ".client-environment"
#: A Celery that the worker cannot use; its redis-py is three major versions older than the pinned one.
OTHER_CELERY = "celery[redis]>=5.5,<5.6"

pytestmark = pytest.mark.timeout(600)

USE = """
import sys
from producer import AsyncClient, Client
with Client() as client:
    job = client.submit("https://images.example/owl.jpg", ["fox"])
    assert job.status() == "queued" and job.cancel() and job.status() == "cancelled"
assert not {"celery", "kombu", "worker"} & set(sys.modules), "the client loaded what it does not need"
"""

BESIDE = """
import celery, redis
assert celery.__version__.startswith("5.5."), celery.__version__
from celery.backends.base import Backend
from producer.errors import JobFailed
failed = Backend(celery.Celery(set_as_current=False)).exception_to_python(
    {"exc_type": "JobFailed", "exc_module": "producer.errors", "exc_message": ["empty", "no bytes.", False]}
)
assert type(failed) is JobFailed and failed.code == "empty"
"""


def pip(python: Path, *arguments: str) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode and any(word in done.stderr for word in ("NewConnectionError", "NameResolutionError")):
        pytest.skip("PyPI cannot be reached")
    assert done.returncode == 0, done.stderr


# In `make test`, tests/test_layout.py checks that the client imports no Celery.
pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of a wheel of the current sources, built with the installed hatchling."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder))
    pip(Path(sys.executable), "wheel", *options, str(ROOT))
    (file,) = folder.glob("nameshot-*.whl")
    return str(file)


@pytest.fixture(scope="module")
def environment(wheel: str) -> Path:
    """The folder of an environment with this project but without extras and without Celery."""
    python = KEPT / "bin" / "python"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    mark = KEPT / "made-of"
    if not mark.is_file() or mark.read_text() != wanted:
        shutil.rmtree(KEPT, ignore_errors=True)
        venv.create(KEPT, with_pip=True)
        pip(python, "install", wheel)
        mark.write_text(wanted)
    pip(python, "uninstall", "--yes", "celery", "kombu", "nameshot")
    pip(python, "install", "--upgrade", wheel)
    return KEPT


@pytest.fixture
def redis(valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in valkey.settings("producer").items():
        monkeypatch.setenv(name, value)


def run(*command: object) -> "subprocess.CompletedProcess[str]":
    # In another folder, because Python would import the project's folders from the working directory.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    return subprocess.run(
        [str(part) for part in command], cwd="/", env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.usefixtures("redis")
def test_the_client_and_its_commands_need_no_celery(environment: Path) -> None:
    assert run(environment / "bin" / "python", "-c", "import celery").returncode
    used = run(environment / "bin" / "python", "-c", USE)
    assert used.returncode == 0, used.stderr

    nameshot = environment / "bin" / "nameshot"
    submitted = run(nameshot, "submit", "https://images.example/owl.jpg", "-l", "fox")
    assert submitted.returncode == 0, submitted.stderr
    assert run(nameshot, "status", submitted.stdout.strip()).stdout == "queued\n"
    assert run(nameshot, "cancel", submitted.stdout.strip()).returncode == 0
    assert "waiting messages: high 0, default 2, bulk 0" in run(nameshot, "doctor").stdout
    refused = run(nameshot, "worker")
    assert refused.returncode == 1
    assert "the worker is not installed" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.usefixtures("redis")
def test_the_client_works_beside_an_older_celery(environment: Path, wheel: str) -> None:
    python = environment / "bin" / "python"
    pip(python, "install", "--upgrade", wheel, OTHER_CELERY)

    pip(python, "check")
    for program in (USE, BESIDE):
        used = run(python, "-c", program)
        assert used.returncode == 0, used.stderr
