"""``nameshot dead-letters list``, ``show`` and ``replay``: what workers gave up on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from producer.cli import options, output
from producer.cli.connection import configuration
from producer.cli.failures import printable
from producer.cli.usage import UsageError

if TYPE_CHECKING:
    from producer.configuration import Configuration
    from producer.connections import BlockingLink
    from producer.dead_letters import DeadLetter

app = typer.Typer(help="Look at jobs that killed workers and at messages that nobody could read; send jobs again.")

Letter = Annotated[str, typer.Argument(help="What `nameshot dead-letters list` calls it.", metavar="LETTER")]


@app.command("list")
def list_(as_json: options.AsJson = False) -> int:
    """Print the dead letters, newest first.

    The newest 1,000 are kept. None shows what was asked.
    """
    from producer.dead_letters import list_letters

    with _broker() as (link, config):
        letters = link.run(list_letters(config.queue_prefix))
    if as_json:
        for letter in letters:
            output.print_json(letter.to_json())
    elif letters:
        _print_table(letters)
    else:
        output.notice("nameshot: there are no dead letters.")
    return 0


@app.command()
def show(letter: Letter, as_json: options.AsJson = False) -> int:
    """Print one dead letter.

    Which job it was, and why it was given up; never what was asked.
    """
    from producer.dead_letters import find_letters

    with _broker() as (link, config):
        (found,) = link.run(find_letters(config.queue_prefix, [letter]))
    if as_json:
        output.print_json(found.to_json())
    else:
        for name, value in found.to_json().items():
            print(f"{name + ':':<8} {'–' if value is None else printable(str(value))}")
    return 0


@app.command()
def replay(
    letters: Annotated[
        list[str] | None,
        typer.Argument(help="What `nameshot dead-letters list` calls them.", metavar="LETTER", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Replay every letter that can be, oldest first.")] = False,
) -> int:
    """Send jobs again, and print their new ids.

    Each goes back to its queue as a new job, with its full number of attempts; the old id keeps its answer. Of a bulk
    job whose one image was given up, only that image is asked about again.
    """
    from producer.dead_letters import check_replayable, find_letters, list_letters, replay_letter

    if everything == bool(letters):
        raise UsageError("name the letters to replay, or give --all.")
    with _broker() as (link, config):
        if everything:
            found = link.run(list_letters(config.queue_prefix))[::-1]
            chosen = [letter for letter in found if letter.code != "malformed"]
            if not chosen:
                output.notice("nameshot: there are no dead letters that can be replayed.")
            elif malformed := len(found) - len(chosen):
                output.notice(f"nameshot: malformed letters stay, since they cannot be replayed: {malformed:,}.")
        else:
            chosen = link.run(find_letters(config.queue_prefix, list(dict.fromkeys(letters or []))))
            for letter in chosen:  # nothing is sent before all of them have proved to be fit for it
                check_replayable(letter)
        for letter in chosen:
            operation = replay_letter(
                config.queue_prefix, letter, result_ttl_s=config.result_ttl_s, max_queue=config.max_queue
            )
            print(link.run(operation), flush=True)
    return 0


@contextlib.contextmanager
def _broker() -> Iterator[tuple[BlockingLink, Configuration]]:
    from producer.connections import BlockingLink

    config = configuration()
    with contextlib.closing(BlockingLink(config.broker, config.results)) as link:
        yield link, config


def _print_table(letters: list[DeadLetter]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("LETTER", "AT", "CODE", "DEATHS", "QUEUE", "JOB"):
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for letter in letters:
        job = (
            "–"
            if letter.job_id is None
            else letter.job_id + (f" image {letter.image}" if letter.image is not None else "")
        )
        cells = (letter.letter, letter.at, letter.code, str(letter.deaths), letter.queue, job)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    output.console().print(table)
