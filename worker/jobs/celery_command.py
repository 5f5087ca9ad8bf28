"""Celery's command line: what would end with a traceback ends with one sentence, and 78."""

from __future__ import annotations

import os
from typing import Any, Final

import click

from producer.errors import SettingsError
from worker.jobs.start_checks import refusal
from worker.runtime import logs


def _prepare(ctx: click.Context, _param: Any, _value: Any) -> None:
    """Before any other option is looked at."""
    click.UsageError.exit_code = os.EX_CONFIG
    for param in ctx.command.params:
        if param.name == "hostname":
            param.type = _Name(param.type)


class _Name(click.ParamType[Any]):
    """As Celery reads ``-n``, without its traceback."""

    name = "hostname"

    def __init__(self, celerys: click.ParamType[Any]) -> None:
        self._celerys = celerys

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._celerys.convert(value, param, ctx)
        except (ValueError, TypeError):
            self.fail(f"{value!r} is no name; of signs with %, only %h, %n, %d, %i and %% mean something.", param, ctx)


#: Hidden: click calls it first of all of ``celery worker``'s options.
FIRST_OPTION: Final = click.Option(
    ["--nameshot-checks"], is_flag=True, is_eager=True, hidden=True, expose_value=False, callback=_prepare
)


def config_refusal(error: Exception) -> SystemExit:
    """The end of a program whose Celery configuration cannot be read."""
    module = os.environ.get("CELERY_CONFIG_MODULE")
    return refusal(
        SettingsError(f"CELERY_CONFIG_MODULE (--config) is {module!r}, which {why_unusable(error)}; unset it.")
    )


def why_unusable(error: Exception) -> str:
    """Behind the name of a module."""
    if isinstance(error, ImportError):
        return f"cannot be imported ({error})"
    return f"failed with {type(error).__name__} at {logs.place_of(error)}"
