"""The command ``nameshot``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

#: The exit status that shells report for a program ended by Ctrl-C.
EXIT_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: with status 0 for success, 1 for failure, 2 for wrong usage, 128 + n after signal n."""
    try:
        from producer.cli.interrupts import never_lose_an_interrupt
        from producer.cli.streams import prepare_streams

        never_lose_an_interrupt()
        prepare_streams()
        status = _run(arguments)
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except BrokenPipeError:  # the program that reads this output has exited (`nameshot … | head`)
        status = 1
    _flush()
    sys.exit(status)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        # Drop what could not be written; otherwise Python would try to write it again at its exit, and fail.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open until the exit


def _run(arguments: Sequence[str] | None) -> int:
    from typer import TyperException

    from producer.cli.app import app
    from producer.errors import NameshotError, UsageError

    try:
        status = app(arguments, prog_name="nameshot", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        print(f"nameshot: {_usage(error)}", file=sys.stderr)
        return error.exit_code
    except NameshotError as error:
        from producer.cli.failures import sentence

        print(f"nameshot: {sentence(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return status if isinstance(status, int) else 0


def _usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "nameshot"
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    return f"{message} (`{command} --help` shows how)."
