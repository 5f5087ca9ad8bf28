"""Fixtures for every test: a real Valkey, and an environment without ``NAMESHOT_*`` settings."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.skips import pytest_make_collect_report, pytest_runtest_makereport
from tests.valkey_server import ValkeyServer

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]


# `make test` tries Hypothesis' own number of examples, `make fuzz` these. No example has a deadline, because a busy
# machine can take any time for one; pytest's timeout ends what hangs.
settings.register_profile("quick", deadline=None)
settings.register_profile("thorough", max_examples=3_000, deadline=None)
settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for tests that take long, or that need hardware that few machines have."""
    parser.addoption("--device", default="cpu", help="what models run on: cpu or cuda:0 (%(default)s)")
    parser.addoption(
        "--time-scale", type=float, default=0.4, help="what null workers multiply leases and the like by (%(default)s)"
    )
    parser.addoption("--outage-s", type=float, help="how long Redis is away (longer than a lease)")


def pytest_configure(config: pytest.Config) -> None:
    """Set where models run, and ignore a warning of another package."""
    # Here and in every process that a test starts: threads of PyTorch that wait for one another leave the cores to the
    # tests beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Celery 5.7 stores answers with SETEX, which redis-py 8.1 calls deprecated.
    if config.getoption("--device") == "cpu":
        # Here and for every process that a test starts: a machine with a GPU runs the same tests as all others.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    config.addinivalue_line("filterwarnings", "ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the ``NAMESHOT_*`` variables of the environment in which the tests are started."""
    for name in [name for name in os.environ if name.startswith("NAMESHOT_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> str:
    """Return the device on which models run in float32: `cpu`, unless ``--device`` names another."""
    return str(pytestconfig.getoption("--device"))


@pytest.fixture(scope="session")
def rounding(device: str) -> float:
    """Return how far two computations of one unit vector may differ: a GPU uses other kernels for other batch sizes."""
    return 1e-6 if device == "cpu" else 1e-5


@pytest.fixture(scope="session")
def valkey_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """Start one server for all tests, which use it through `valkey`."""
    with ValkeyServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def valkey(valkey_of_this_run: ValkeyServer) -> ValkeyServer:
    """Return the shared server, emptied. A test that stops or freezes a server uses `own_valkey`."""
    with valkey_of_this_run.connect() as connection:
        connection.flushall()
    return valkey_of_this_run


@pytest.fixture
def own_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """Start a server that this test may stop, freeze and start again."""
    with ValkeyServer(tmp_path_factory.mktemp("own-valkey")) as server:
        yield server
