"""Celery's worker, which ends with one sentence and exit status 78 if its options cannot be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery.apps.worker import Worker
from celery.utils.nodenames import default_nodename, node_format

from worker.jobs.celery_command import why_unusable
from worker.jobs.start_checks import refusal


class CarefulWorker(Worker):  # type: ignore[misc]  # celery is untyped
    """The class of the worker that ``celery -A worker worker`` runs.

    Args:
        checks_only: whether to check everything that precedes loading the model and then end with status 0.
    """

    def __init__(
        self, app: Any = None, hostname: str | None = None, *, checks_only: bool = False, **options: Any
    ) -> None:
        self.checks_only = checks_only
        try:
            (app or self.app).loader.init_worker()
        except Exception as error:
            raise refusal(f"Celery's setting imports has a module that {why_unusable(error)}; leave it out.") from None
        self._open_log((app or self.app).either("worker_log_file", options.get("logfile")), hostname)
        super().__init__(app, hostname, **options)

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Check ``-Q``, ``-X``, ``--pidfile`` and ``--statedb``, then set up the queues; Celery calls this first."""
        for option, path in (("--pidfile", self.pidfile), ("--statedb", self.statedb)):
            if path and not os.access(Path(path).absolute().parent, os.W_OK):
                raise refusal(f"{option} {path} cannot be created: its folder does not exist or is not writable.")
        chosen, left_out = _names(include), _names(exclude)
        known = list(self.app.amqp.queues)
        for option, names in (("-Q", chosen), ("-X", left_out)):
            for name in names:
                if name not in known:
                    raise refusal(
                        f"{option} names {name!r}, which is not a queue of this worker; it has {', '.join(known)} "
                        "(NAMESHOT_QUEUE_PREFIX)."
                    )
        if not set(chosen or known) - set(left_out):
            raise refusal("-X excludes every queue; leave at least one.")
        super().setup_queues(chosen, left_out)

    def setup_includes(self, includes: Any) -> None:
        """Import the modules of ``-I``, or end with a sentence; their tasks do not run in this worker."""
        try:
            super().setup_includes(includes)
        except Exception as error:
            raise refusal(f"-I (--include) has a module that {why_unusable(error)}; leave it out.") from None

    def _open_log(self, path: str | None, hostname: str | None) -> None:
        """Redirect standard error, which receives all log lines, to the file of ``-f`` (``--logfile``)."""
        if not path:
            return
        path = node_format(path, default_nodename(hostname))
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise refusal(f"--logfile {path} cannot be written ({error.strerror}).") from None
        if not self.checks_only:
            os.dup2(file, 2)
        os.close(file)


def _names(chosen: Any) -> list[str]:
    return [name.strip() for name in chosen.split(",")] if isinstance(chosen, str) else list(chosen or ())
