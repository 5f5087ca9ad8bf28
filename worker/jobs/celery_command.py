"""Makes wrong options of Celery's command line end with one sentence and exit status 78, without a traceback."""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final

import click
from click.core import ParameterSource

from worker.jobs.before_start import checked_start
from worker.jobs.start_checks import refusal, wrong_pool
from worker.runtime import logs


def _prepare(ctx: click.Context, _param: Any, _value: Any) -> None:
    """Adapt Celery's command before click parses any other option."""
    click.UsageError.exit_code = os.EX_CONFIG
    start = ctx.command.callback
    if start is not None and not isinstance(start, partial):
        ctx.command.callback = partial(checked_start, start)
    for param in ctx.command.params:
        if param.name == "hostname":
            param.type = _Name(param.type)
        if param.name == "pool" and isinstance(param.type, click.Choice):
            param.type = _Pool(param.type)


class _Name(click.ParamType[Any]):
    """A wrapper of Celery's type for ``-n`` that reports a wrong name without a traceback."""

    name = "hostname"

    def __init__(self, celerys: click.ParamType[Any]) -> None:
        self._celerys = celerys

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._celerys.convert(value, param, ctx)
        except (ValueError, TypeError):
            self.fail(f"{value!r} is not a name; the only % codes are %h, %n, %d, %i and %%.", param, ctx)


class _Pool(click.Choice[str]):
    """A wrapper of Celery's type for ``-P`` that refuses an explicit ``prefork``, which Celery takes for no choice."""

    def __init__(self, celerys: click.Choice[str]) -> None:
        super().__init__(celerys.choices)
        self._celerys = celerys

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        is_explicit = param and ctx and ctx.get_parameter_source(str(param.name)) is not ParameterSource.DEFAULT
        if value == "prefork" and is_explicit:
            raise refusal(wrong_pool(value))
        return self._celerys.convert(value, param, ctx)


#: This hidden option is eager, so click calls its callback before it parses the other options of ``celery worker``.
FIRST_OPTION: Final = click.Option(
    ["--nameshot-checks"], is_flag=True, is_eager=True, hidden=True, expose_value=False, callback=_prepare
)


def module_refusal(option: str, error: Exception) -> SystemExit:
    """Log why the module of ``--config`` or ``--loader`` cannot be used; return the exception that ends the program."""
    variable = {"--config": "CELERY_CONFIG_MODULE", "--loader": "CELERY_LOADER"}[option]
    module = os.environ.get(variable)
    return refusal(f"{variable} ({option}) is {module!r}, which {why_unusable(error)}; unset it.")


def why_unusable(error: Exception) -> str:
    """Return why a module cannot be used, as a clause to follow the module's name."""
    if isinstance(error, ImportError):
        return f"cannot be imported ({error})"
    return f"failed with {type(error).__name__} at {logs.place_of(error)}"
