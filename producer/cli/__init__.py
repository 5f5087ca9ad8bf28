"""The command ``nameshot``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

#: The exit status that shells report for a program ended by Ctrl-C.
EXIT_INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 done, 1 failed, 2 used wrongly, 128 + n ended by signal n."""
    try:
        from producer.cli.interrupts import never_lose_an_interrupt

        never_lose_an_interrupt()
        status = _run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has exited (`nameshot … | head`). Python would fail again when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> int:
    from producer.errors import NameshotError

    for stream in (sys.stdout, sys.stderr):
        # Print labels even on a terminal that cannot show their characters.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    from typer import TyperException

    from producer.cli.app import app
    from producer.errors import UsageError

    try:
        status = app(arguments, prog_name="nameshot", standalone_mode=False)
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
