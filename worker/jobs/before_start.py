"""Adds two steps at the beginning of ``celery worker``: changing the user, and checking a start with ``-D``.

Celery itself would print a traceback for a wrong user, and the errors of a detached worker would be lost. To check a
start with ``-D``, this process creates a worker up to the point where the worker would load its model.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import click
from celery.platforms import EX_CANTCREAT, PIDLOCKED, Pidfile, maybe_drop_privileges
from celery.utils.nodenames import node_format

from worker.jobs.start_checks import refusal

logger = logging.getLogger(__name__)

#: These options are removed from the arguments of a detached worker, because this process has already changed its user.
_USER_OPTIONS: Final = ("--uid", "--gid")


def checked_start(start: Callable[..., Any], **options: Any) -> Any:
    """Change the user, check a detached start, and call Celery's function.

    Args:
        start: the function of ``celery worker``, called with all options.
    """
    _become(options.pop("uid"), options.pop("gid"))
    if options["detach"]:
        context = click.get_current_context()
        with suppress(KeyError, ValueError):  # Celery itself reports settings that it cannot parse
            context.obj.app.config_from_cmdline(list(context.args), namespace="worker")
        _check_detached(context.obj.app, dict(options))
        sys.argv[1:] = _without_user(sys.argv[1:])
    return start(uid=None, gid=None, **options)


def _become(uid: str | None, gid: str | None) -> None:
    try:
        maybe_drop_privileges(uid=uid, gid=gid)
    except KeyError as error:
        raise refusal(f"--uid or --gid cannot be used: {error.args[0]}.") from None
    except OSError as error:
        raise refusal(f"--uid or --gid cannot be used: {error.strerror}; only root may change the user.") from None


def _check_detached(app: Any, options: dict[str, Any]) -> None:
    hostname = options["hostname"]
    python = options["executable"] or sys.executable
    if not os.access(python, os.X_OK):
        raise refusal(f"-D cannot start {python}: this user may not run it, or it does not exist.")
    if not options["logfile"]:
        logger.warning("without -f (--logfile), the log lines of a worker started with -D are lost")
    if pidfile := node_format(options["pidfile"], hostname):
        lock = Pidfile(pidfile)
        if lock.is_locked() and not lock.remove_if_stale():
            print(PIDLOCKED.format(pidfile, lock.read_pid()), file=sys.stderr)
            raise SystemExit(EX_CANTCREAT)
    options.update(pidfile=pidfile, statedb=node_format(options["statedb"], hostname))
    try:
        app.Worker(checks_only=True, **options)
    except SystemExit as end:
        if end.code:
            raise


def _without_user(arguments: list[str]) -> list[str]:
    kept: list[str] = []
    values = iter(arguments)
    for argument in values:
        if argument in _USER_OPTIONS:
            next(values, None)
        elif not argument.startswith(tuple(f"{option}=" for option in _USER_OPTIONS)):
            kept.append(argument)
    return kept
