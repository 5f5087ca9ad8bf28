"""Start Valkey and one worker together, and stop them together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from producer.embedded.kept import Kept
from producer.embedded.pictures import PictureServer
from producer.embedded.valkey import RunningValkey
from producer.embedded.worker import WorkerProcess
from producer.settings import BUNDLED


@contextlib.contextmanager
def embedded_system(
    folder: Path,
    pictures: PictureServer,
    *,
    settings: Mapping[str, str],
    persistent: bool = False,
    inherit: Sequence[int] = (),
    kept: Kept | None = None,
    redis_port: int | None = None,
    stop_grace_s: float,
    announce: Callable[[str], None],
    on_poll: Callable[[], None],
) -> Iterator[tuple[RunningValkey, WorkerProcess]]:
    """Run Valkey and a worker during a ``with`` block, which begins once the worker is ready.

    Yield both; each can be inspected, stopped or restarted alone.

    Args:
        folder: a private folder for the data and logs.
        pictures: the running picture server, from which the worker may fetch; the caller closes it.
        settings: environment variables for the worker.
        persistent: whether to keep the queues and the answers in the folder.
        inherit: file descriptors that Valkey keeps open.
        kept: the password of Valkey, and the port that Valkey uses if the port is free; None creates a new password.
        redis_port: the port that Valkey must use; None selects that of ``kept``, or any free port.
        stop_grace_s: how long a worker that was ready may take to finish its jobs when it is stopped.
        announce: called with the name of each stage of the start, and with an empty name at its end.
        on_poll: called about 20 times a second while the model loads.

    Raises:
        EmbeddedError: a part did not start.
    """
    announce("starting Valkey")
    with RunningValkey(
        folder,
        persistent=persistent,
        inherit=inherit,
        port=redis_port or (kept.redis_port if kept else None),
        or_another=redis_port is None,
        password=kept.redis_password if kept else None,
    ) as valkey:
        announce("loading the model")

        def extended(setting: str) -> str:
            return ",".join(filter(None, (settings.get(setting, "").strip().strip(","), pictures.fetch_allow)))

        worker = WorkerProcess(
            {
                "NAMESHOT_MODEL": BUNDLED,
                **settings,
                "NAMESHOT_BROKER_URL": valkey.broker_url,
                "NAMESHOT_RESULT_BACKEND": valkey.result_backend,
                "NAMESHOT_FETCH_ALLOW": extended("NAMESHOT_FETCH_ALLOW"),
                # A proxy on another machine cannot reach the pictures of this one.
                "NAMESHOT_FETCH_DIRECT": extended("NAMESHOT_FETCH_DIRECT"),
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
            # Only a worker that was ready can hold jobs, which it needs time to finish.
            grace_s = stop_grace_s
            yield valkey, worker
        finally:
            worker.stop(grace_s)
