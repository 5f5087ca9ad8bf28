"""Check this machine without loading a model: versions, settings, checkpoint, GPU."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from producer.cli.connection import absent_system, is_configured
from producer.errors import NameshotError
from producer.findings import Finding
from producer.settings import PREFIX, ProducerSettings, read_settings

if TYPE_CHECKING:
    from producer.embedded.home import UpInfo


def installation() -> Iterator[Finding]:
    """Report the versions that a bug report needs."""
    parts = ["nameshot", "celery", "redis"] + ["torch", "transformers"] * has_worker()
    versions = ", ".join(f"{part} {_version(part)}" for part in parts)
    yield Finding("versions", "ok", f"Python {platform.python_version()}, {versions}")


def embedded(up: UpInfo | None) -> Iterator[Finding]:
    """If `nameshot up` runs, or commands would use it if it ran, report whether commands use it."""
    from producer.embedded.home import data_folder, running_up

    running = running_up()
    if up is not None:
        text = f"process {up.pid}, {up.url}, data in {data_folder()}; commands use it"
        if not is_configured():
            text += ', and so do programs and workers after eval "$(nameshot env)" in their shell'
        yield Finding("nameshot up", "ok", text)
    elif running is not None and is_configured():
        yield Finding(
            "nameshot up",
            "ok",
            f"process {running.pid} is running, but the environment names another Redis, which commands use instead",
        )
    elif (why := absent_system()) is not None:
        state, _, advice = why.partition(", so ")
        yield Finding("nameshot up", "warning", f"{state}, and commands would use it", advice)


def environment() -> Iterator[Finding]:
    """Check the ``NAMESHOT_…`` variables of clients and, if a worker is installed here, of workers."""
    given = sorted(name for name in os.environ if name.startswith(PREFIX))
    try:
        settings = _worker().read() if has_worker() else read_settings(ProducerSettings)
    except NameshotError as error:
        yield Finding("settings", "broken", str(error), "correct the variable")
        return
    known = type(settings).model_fields
    unknown = [name for name in given if name.removeprefix(PREFIX).lower() not in known]
    if unknown and has_worker():  # without a worker here, the variables may be meant for a worker elsewhere
        yield Finding("settings", "warning", f"no setting is called {', '.join(unknown)}", "check the spelling")
    else:
        yield Finding("settings", "ok", f"from the environment: {', '.join(given) or 'none, all are defaults'}")


def model(up: UpInfo | None) -> Iterator[Finding]:
    """Check the checkpoint that a worker started here would load."""
    if up is not None:
        yield Finding("model", "ok", f"{up.model}, in `nameshot up`")
    elif not has_worker():
        yield Finding("model", "ok", "the worker is not installed here; workers elsewhere run the jobs")
    else:
        yield from _worker().check_model()


def device(*, deep: bool) -> Iterator[Finding]:
    """Check the worker's device. Loading torch takes seconds; `worker.command.check_device` says when it is loaded."""
    if has_worker():
        yield from _worker().check_device(deep=deep)


def has_worker() -> bool:
    """Return whether a worker can run from this installation."""
    return all(find_spec(module) is not None for module in ("worker", "celery", "torch", "transformers"))


def _worker() -> Any:
    """Return the worker's part of the command, imported by name since this package must not depend on the worker."""
    return import_module("worker.command")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not installed)"
