"""What `from producer import …` costs, and which names it offers."""

import json
import subprocess
import sys

import pytest

import producer
from producer import public

MEASURE = """
import json, resource, sys
def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
before_s = cpu_s()
from producer import *
print(json.dumps({"cpu_s": cpu_s() - before_s, "modules": sorted(sys.modules)}))
"""
HEAVY = {"torch", "transformers", "PIL", "numpy", "worker", "celery", "kombu", "redis", "pydantic", "typer", "requests"}


def in_a_fresh_interpreter(program: str) -> dict[str, object]:
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    measured: dict[str, object] = json.loads(finished.stdout)
    return measured


def test_importing_the_producer_is_cheap_and_loads_no_large_package() -> None:
    measured = in_a_fresh_interpreter(MEASURE)

    assert isinstance(measured["modules"], list)
    assert isinstance(measured["cpu_s"], float)
    assert HEAVY.isdisjoint(measured["modules"])
    assert measured["cpu_s"] < 0.5


def test_making_a_client_loads_no_celery_and_does_not_connect() -> None:
    program = MEASURE.replace("print", "Client('redis://127.0.0.1:1/0', 'redis://127.0.0.1:1/1')\nprint")
    measured = in_a_fresh_interpreter(program)

    assert isinstance(measured["modules"], list)
    assert {"torch", "transformers", "PIL", "worker", "celery", "kombu"}.isdisjoint(measured["modules"])


def test_all_lists_exactly_the_public_names() -> None:
    assert {name for name in vars(public) if not name.startswith("_")} == set(public.__all__)
    assert public.__all__ == sorted(public.__all__)
    assert set(dir(producer)) > set(public.__all__)


def test_each_public_name_can_be_imported_and_others_cannot() -> None:
    for name in public.__all__:
        assert getattr(producer, name) is getattr(public, name)
    with pytest.raises(AttributeError, match="module 'producer' has no attribute 'Klient'"):
        _ = producer.Klient  # type: ignore[attr-defined]  # the test needs a name that does not exist
