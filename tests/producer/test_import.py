"""What `import producer` costs and offers."""

import json
import subprocess
import sys
from types import ModuleType

import producer

MEASURE = """
import json, resource, sys
def cpu_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
before_s = cpu_s()
import producer
print(json.dumps({"cpu_s": cpu_s() - before_s, "modules": sorted(sys.modules)}))
"""
HEAVY = {"torch", "transformers", "PIL", "numpy", "worker", "celery", "kombu", "redis", "pydantic", "typer", "requests"}


def in_a_fresh_interpreter(program: str) -> dict[str, object]:
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    measured: dict[str, object] = json.loads(finished.stdout)
    return measured


def test_importing_is_cheap_and_loads_nothing_heavy() -> None:
    measured = in_a_fresh_interpreter(MEASURE)

    assert isinstance(measured["modules"], list)
    assert isinstance(measured["cpu_s"], float)
    assert HEAVY.isdisjoint(measured["modules"])
    assert measured["cpu_s"] < 0.5


def test_making_a_client_loads_no_celery_and_connects_to_nothing() -> None:
    program = MEASURE.replace("print", "producer.Client('redis://127.0.0.1:1/0', 'redis://127.0.0.1:1/1')\nprint")
    measured = in_a_fresh_interpreter(program)

    assert isinstance(measured["modules"], list)
    assert {"torch", "transformers", "PIL", "worker", "celery", "kombu"}.isdisjoint(measured["modules"])


def test_all_names_exactly_the_public_surface() -> None:
    public = {
        name for name, value in vars(producer).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }

    assert public == set(producer.__all__)
    assert producer.__all__ == sorted(producer.__all__)
