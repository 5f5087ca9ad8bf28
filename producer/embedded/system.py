"""Valkey, a picture server and one worker, started together and stopped together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from producer.embedded.pictures import PictureServer
from producer.embedded.valkey import RunningValkey
from producer.embedded.worker import WorkerProcess
from producer.settings import BUNDLED


@dataclass(frozen=True, slots=True)
class EmbeddedSystem:
    """The running parts, each of which can be inspected, stopped or restarted alone."""

    valkey: RunningValkey
    pictures: PictureServer
    worker: WorkerProcess


@contextlib.contextmanager
def embedded_system(
    folder: Path,
    pictures: PictureServer,
    *,
    persistent: bool = False,
    settings: Mapping[str, str] | None = None,
    inherit_settings: bool = False,
    inherit: Sequence[int] = (),
    stop_grace_s: float,
    announce: Callable[[str], None] = lambda _stage: None,
    on_poll: Callable[[], None] = lambda: None,
) -> Iterator[EmbeddedSystem]:
    """Run the whole system for the duration of a ``with`` block, which begins once the worker is ready.

    Args:
        folder: a private folder for the data and logs.
        pictures: the running picture server, which the caller closes.
        persistent: whether to keep the queue and the answers in the folder.
        settings: environment variables for the worker.
        inherit_settings: whether the worker also gets this process's own ``NAMESHOT_…`` variables.
        inherit: file descriptors that Valkey keeps open.
        stop_grace_s: how long the worker may finish its jobs when it is stopped.
        announce: called with the name of each stage of the start.
        on_poll: called about 20 times a second while the model loads.

    Raises:
        EmbeddedError: a part did not start.
    """
    announce("starting Valkey")
    with RunningValkey(folder, persistent=persistent, inherit=inherit) as valkey:
        announce("loading the model")
        worker = WorkerProcess(
            {
                "NAMESHOT_MODEL": BUNDLED,
                **(inherited_settings() if inherit_settings else {}),
                **(settings or {}),
                "NAMESHOT_BROKER_URL": valkey.broker_url,
                "NAMESHOT_RESULT_BACKEND": valkey.result_backend,
                "NAMESHOT_FETCH_ALLOW": _fetch_allow(pictures, inherit_settings=inherit_settings),
            },
            folder,
        )

        def check() -> None:
            # Without its broker a worker would wait indefinitely.
            valkey.raise_if_ended()
            on_poll()

        grace_s = 0.0
        try:
            worker.wait_until_ready(on_poll=check)
            announce("")
            # From now on the worker may hold jobs.
            grace_s = stop_grace_s
            yield EmbeddedSystem(valkey, pictures, worker)
        finally:
            worker.stop(grace_s)


def inherited_settings() -> dict[str, str]:
    """Return this process's own ``NAMESHOT_…`` variables."""
    return {name: value for name, value in os.environ.items() if name.startswith("NAMESHOT_")}


def _fetch_allow(pictures: PictureServer, *, inherit_settings: bool) -> str:
    own = os.environ.get("NAMESHOT_FETCH_ALLOW", "") if inherit_settings else ""
    return ",".join(part for part in (own.strip().strip(","), pictures.fetch_allow) if part)
