"""Celery's worker, which refuses in a sentence, with status 78, what it is asked and cannot do."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from celery.apps.worker import Worker

from producer.errors import SettingsError
from worker.jobs.celery_command import why_unusable
from worker.jobs.start_checks import refusal


class CarefulWorker(Worker):  # type: ignore[misc]  # celery is untyped
    """What ``celery -A worker worker`` runs."""

    def setup_queues(self, include: Any, exclude: Any = None) -> None:
        """Take from some of our queues; the first of what is set up."""
        self._check_files()
        chosen, left_out = _names(include), _names(exclude)
        known = list(self.app.amqp.queues)
        for option, names in (("-Q", chosen), ("-X", left_out)):
            for name in names:
                if name not in known:
                    raise refusal(
                        SettingsError(
                            f"{option} names {name!r}, which is no queue of this worker; it has {', '.join(known)} "
                            "(NAMESHOT_QUEUE_PREFIX)."
                        )
                    )
        if not set(chosen or known) - set(left_out):
            raise refusal(SettingsError("-X leaves no queue to take from; leave one in."))
        super().setup_queues(chosen, left_out)

    def setup_includes(self, includes: Any) -> None:
        """Import what was asked for, though its tasks do not run here."""
        try:
            super().setup_includes(includes)
        except Exception as error:
            raise refusal(SettingsError(f"a module of -I (--include) {why_unusable(error)}; leave it out.")) from None

    def _check_files(self) -> None:
        for option, path in (("--pidfile", self.pidfile), ("--statedb", self.statedb)):
            folder = Path(path).absolute().parent if path else Path.cwd()
            if not os.access(folder, os.W_OK):
                raise refusal(
                    SettingsError(f"{option} {path} cannot be made: its folder is not there, or not to be written to.")
                )


def _names(chosen: Any) -> list[str]:
    if isinstance(chosen, str):
        return [name.strip() for name in chosen.split(",")]
    names: Iterable[str] = chosen or ()
    return list(names)
