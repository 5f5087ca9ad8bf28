"""Type checkers see the intended types of the public names in the installed wheel."""

import inspect
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from producer import AsyncClient, AsyncJob, Client, Job

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("typed_program.py")


def run(*command: object, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the interpreter of an environment in which only the wheel is installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index")
    done = run(sys.executable, "-m", "pip", "install", *options, "--target", packages, ROOT, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder / "bin" / "python"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a copy of the program outside the repository, whose folders would hide the installed wheel."""
    return Path(shutil.copy(PROGRAM, tmp_path))


def test_mypy_sees_the_intended_type_of_every_call(python: Path, program: Path) -> None:
    options = ("--strict", "--config-file=", f"--cache-dir={program.parent / 'cache'}")

    done = run(sys.executable, "-m", "mypy", *options, f"--python-executable={python}", program, cwd=program.parent)

    assert done.returncode == 0, done.stdout


def test_pyright_sees_the_intended_type_of_every_call(
    python: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("node"):
        pytest.skip("needs node, on which pyright runs")
    strict = {"typeCheckingMode": "strict", "enableTypeIgnoreComments": False}
    settings = {**strict, "reportUnnecessaryTypeIgnoreComment": "error", "include": [program.name]}
    (program.parent / "pyrightconfig.json").write_text(json.dumps(settings))

    monkeypatch.setenv("PYRIGHT_PYTHON_IGNORE_WARNINGS", "1")  # otherwise it asks PyPI for a newer version

    done = run(sys.executable, "-m", "pyright", f"--pythonpath={python}", cwd=program.parent)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "name", "function"),
    [
        (Client, "client", "blocking"),
        (Job, "job", "blocking"),
        (AsyncClient, "client", "with_asyncio"),
        (AsyncJob, "job", "with_asyncio"),
    ],
    ids=lambda parameter: getattr(parameter, "__name__", ""),
)
def test_the_typed_program_calls_every_public_method(kind: type, name: str, function: str) -> None:
    body = PROGRAM.read_text().partition(f"def {function}(")[2].partition("\n\n\n")[0]

    for method, _ in inspect.getmembers(kind, inspect.isfunction):
        if not method.startswith("_"):
            assert f"{name}.{method}(" in body, method
