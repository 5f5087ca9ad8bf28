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
    from producer.broker.connections import BlockingLink
    from producer.client.configuration import Configuration
    from producer.operations.dead_letters import DeadLetter

app = typer.Typer(help="Look at jobs that killed workers and at messages that nobody could read; send jobs again.")

Letter = Annotated[str, typer.Argument(help="What `nameshot dead-letters list` calls it.", metavar="LETTER")]


@app.command("list")
def list_(as_json: options.AsJson = False) -> int:
    """Print the dead letters, newest first.

    The newest 1,000 are kept. None shows what was asked.
    """
    from producer.operations.dead_letters import list_letters

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
    from producer.operations.dead_letters import find_letters

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
    job whose one image was given up, only that image is asked about again. A message that has expired, or is about to,
    is sent without an end.
    """
    from producer.operations.dead_letters import (
        DeadLetterError,
        check_replayable,
        find_letters,
        list_letters,
        replay_letter,
    )

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
        failed = 0
        for letter in chosen:
            operation = replay_letter(
                config.queue_prefix, letter, result_ttl_s=config.result_ttl_s, max_queue=config.max_queue
            )
            try:
                replayed = link.run(operation)
            except DeadLetterError as error:  # it stays, and the others are replayed all the same
                output.notice(f"nameshot: {printable(str(error))}")
                failed += 1
                continue
            print(replayed.job_id, flush=True)
            if replayed.lost_expires:
                output.notice(f"nameshot: letter {letter.letter} has expired, so its new job does not expire.")
    return 1 if failed else 0


@contextlib.contextmanager
def _broker() -> Iterator[tuple[BlockingLink, Configuration]]:
    from producer.broker.connections import BlockingLink

    config = configuration()
    with contextlib.closing(BlockingLink(config.broker, config.results)) as link:
        yield link, config


def _print_table(letters: list[DeadLetter]) -> None:
    """Each id whole, on however narrow a terminal: `show` and `replay` want it so."""
    rows: list[tuple[str, ...]] = [("LETTER", "AT", "CODE", "DEATHS", "QUEUE", "JOB")]
    for letter in letters:
        image = "" if letter.image is None else f" image {letter.image}"
        job = "–" if letter.job_id is None else f"{letter.job_id}{image}"
        cells = (letter.letter, letter.at, letter.code, str(letter.deaths), letter.queue, job)
        rows.append(tuple(map(printable, cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
