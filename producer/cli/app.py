"""Register all commands. Each one imports most of its modules only when it runs, which keeps ``--help`` fast."""

from __future__ import annotations

from typing import Annotated

import typer

from producer.cli import acl, classify, dead_letters, jobs, purge, serve, system, trial
from producer.cli.bulk import command as bulk
from producer.cli.doctor import command as doctor
from producer.cli.evaluate import command as evaluate

app = typer.Typer(
    name="nameshot",
    help="Ask which of your labels fits an image: zero-shot image classification through a queue.",
    epilog="New here? Start with `nameshot demo`, which needs no setup.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from producer.version import own_version

        print(f"nameshot {own_version() or '(not installed, run from its sources)'}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


for _name, _command in (
    ("demo", system.demo),
    ("up", system.up),
    ("env", system.env),
    ("worker", system.worker),
    ("serve", serve.serve),
    ("classify", classify.classify),
    ("submit", classify.submit),
    ("bulk", bulk.bulk),
    ("evaluate", evaluate.evaluate),
    ("compare", trial.compare),
    ("verify", trial.verify),
    ("status", jobs.status),
    ("result", jobs.result),
    ("wait", jobs.wait),
    ("cancel", jobs.cancel),
    ("forget", jobs.forget),
    ("purge", purge.purge),
    ("doctor", doctor.doctor),
    ("acl", acl.acl),
):
    app.command(_name)(_command)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(serve.keys_app, name="keys")
