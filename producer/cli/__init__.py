"""The command ``nameshot``."""

from __future__ import annotations

import os
import sys

# Type checkers treat this name like typing's. The command must handle Ctrl-C before it loads anything, even typing.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, NoReturn

    from producer.errors import NameshotError

#: The exit status that shells report for a program ended by Ctrl-C.
EXIT_INTERRUPTED: Final = 130
#: A job has no answer yet, so the same command may succeed later (EX_TEMPFAIL of sysexits.h).
EXIT_NO_ANSWER_YET: Final = 75


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit.

    The status is 0 for success, 1 for failure, 2 for wrong usage, 75 if a job has no answer yet, and 128 + n after
    signal n.
    """
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
    from typer import Abort, TyperException

    from producer.cli.app import app
    from producer.errors import NameshotError, UsageError

    try:
        status = app(arguments, prog_name="nameshot", standalone_mode=False)
        sys.stdout.flush()
    except Abort:  # Ctrl-C or the end of the input at a prompt
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except TyperException as error:
        _report(UsageError(_usage(error)), arguments)
        return error.exit_code
    except NameshotError as error:
        _report(error, arguments)
        return 2 if isinstance(error, UsageError) else 1
    except OSError as error:
        # The system refused a file, a folder or memory, for example; this is not a bug, so print no traceback.
        subject = f"{error.filename} cannot be used" if error.filename else "the system refused a call"
        _report(NameshotError(f"{subject}: {error.strerror or error}."), arguments)
        return 1
    return status if isinstance(status, int) else 0


def _report(error: NameshotError, arguments: Sequence[str] | None) -> None:
    """Print the error as a sentence on standard error and, with ``--json``, as an object on standard output."""
    import contextlib
    import itertools

    from producer.cli.failures import error_to_json, sentence
    from producer.cli.output import print_json
    from producer.cli.streams import StreamFailed

    options = itertools.takewhile(lambda argument: argument != "--", sys.argv[1:] if arguments is None else arguments)
    print(f"nameshot: {sentence(error)}", file=sys.stderr)
    if "--json" in options:
        with contextlib.suppress(StreamFailed):
            print_json({"error": error_to_json(error)})


def _usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "nameshot"
    # Typer puts each choice of a missing argument on a line of its own.
    message = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]  # of Typer's usage errors
    return f"{message} (`{command} --help` shows how)."
