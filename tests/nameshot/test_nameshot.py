"""Programs import `nameshot`, which works even next to a ``producer.py`` or ``worker.py`` of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

import nameshot
import producer
from tests.valkey_server import ValkeyServer

ROOT = Path(__file__).parents[2]
SUBMIT = """
from nameshot import AsyncClient, Client, InvalidJob, JobFailed
with Client(BROKER, RESULTS) as client:
    job = client.submit("https://images.example/owl.jpg", ["fox", "owl"])
    print(job.status(), client.queue_depths()["default"])
    try:
        client.submit("no url", ["fox"])
    except InvalidJob as error:
        print(type(error).__name__)
import asyncio
async def ask():
    async with AsyncClient(BROKER, RESULTS) as client:
        print(await client.job(job.id).status(), await client.cancel(job.id))
asyncio.run(ask())
"""
SAID = ["queued 1", "InvalidJob", "queued True"]


def run(folder: Path, code: str, valkey: ValkeyServer) -> list[str]:
    """Run a program in a folder of its own, and return the lines that it printed."""
    (folder / "program.py").write_text(f"BROKER, RESULTS = {valkey.broker_url!r}, {valkey.result_backend!r}\n{code}")
    done = subprocess.run([sys.executable, "program.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_nameshot_has_the_same_public_objects_as_producer() -> None:
    assert nameshot.Client is producer.Client
    assert {name for name in dir(nameshot) if not name.startswith("_")} >= set(producer.public.__all__)
    assert nameshot.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(nameshot, "noth" + "ing")


def test_a_program_that_imports_nameshot_can_submit_jobs(tmp_path: Path, valkey: ValkeyServer) -> None:
    assert run(tmp_path, SUBMIT, valkey) == SAID


@pytest.mark.parametrize("own_comes_first", [True, False])
def test_a_program_can_import_both_nameshot_and_its_own_producer_module(
    own_comes_first: bool, tmp_path: Path, valkey: ValkeyServer
) -> None:
    (tmp_path / "producer.py").write_text("MADE_HERE = 'cheese'\n")
    own = "import producer\nprint(producer.MADE_HERE)\n"

    said = run(tmp_path, own + SUBMIT if own_comes_first else SUBMIT + own, valkey)

    assert said == (["cheese", *SAID] if own_comes_first else [*SAID, "cheese"])


def test_a_program_can_import_both_nameshot_and_its_own_producer_package(tmp_path: Path, valkey: ValkeyServer) -> None:
    (tmp_path / "producer").mkdir()
    (tmp_path / "producer" / "__init__.py").write_text("")
    (tmp_path / "producer" / "errors.py").write_text("MADE_HERE = 'cheese'\n")

    said = run(tmp_path, SUBMIT + "import producer.errors\nprint(producer.errors.MADE_HERE)\n", valkey)

    assert said == [*SAID, "cheese"]


def test_nameshot_worker_and_worker_celery_have_the_same_app() -> None:
    code = "import nameshot.worker, worker.celery; assert nameshot.worker.app is worker.celery.app"

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_error_names_a_worker_py_that_hides_the_installed_package(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text("")

    done = subprocess.run(
        [sys.executable, "-c", "import nameshot.worker"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert "a worker.py of your own hides the installed package" in done.stderr


@pytest.mark.parametrize("package", ["nameshot", "producer", "worker"])
def test_every_published_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()
