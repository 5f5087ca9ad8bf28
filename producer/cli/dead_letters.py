"""``nameshot dead-letters list``, ``show`` and ``replay``: inspect and replay messages that workers gave up on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from producer.cli import options, output
from producer.cli.connection import link_to_redis
from producer.cli.failures import printable
from producer.errors import UsageError

if TYPE_CHECKING:
    from producer.operations.dead_letters import DeadLetter

app = typer.Typer(help="List, show and replay the dead letters: messages that workers gave up on.")

Letter = Annotated[
    str, typer.Argument(help="The dead letter's id, from `nameshot dead-letters list`.", metavar="LETTER")
]


@app.command("list")
def list_(as_json: options.AsJson = False) -> int:
    """Print the dead letters, newest first.

    Redis keeps the newest 1,000, and every job whose answer cannot be stored. No command shows their URLs or labels.
    """
    from producer.operations.dead_letters import list_letters

    with link_to_redis() as (link, config):
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

    Prints the job's id and queue and why workers gave up on it, but no URL or label.
    """
    from producer.operations.dead_letters import find_letters

    with link_to_redis() as (link, config):
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
        typer.Argument(
            help="The dead letters' ids, from `nameshot dead-letters list`.", metavar="LETTER", show_default=False
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Replay every dead letter that can be replayed, oldest first.")
    ] = False,
) -> int:
    """Send the jobs of dead letters again, and print their new ids.

    Each job returns to its queue as a new job with its full number of attempts; the old id keeps its answer. If workers
    gave up on only one image of a bulk job, the new job has only that image. A job that has expired, or is about to
    expire, is sent without an expiry.
    """
    from producer.operations.dead_letters import (
        DeadLetterError,
        check_replayable,
        find_letters,
        list_letters,
        replay_letter,
    )

    if everything == bool(letters):
        raise UsageError("name the dead letters to replay, or give --all.")
    with link_to_redis() as (link, config):
        if everything:
            found = link.run(list_letters(config.queue_prefix))[::-1]
            chosen = [letter for letter in found if letter.code != "malformed"]
            if not chosen:
                output.notice("nameshot: there are no dead letters that can be replayed.")
            elif malformed := len(found) - len(chosen):
                output.notice(f"nameshot: kept malformed letters, which cannot be replayed: {malformed:,}.")
        else:
            chosen = link.run(find_letters(config.queue_prefix, list(dict.fromkeys(letters or []))))
            for letter in chosen:  # check all dead letters before any job is sent
                check_replayable(letter)
        failed = 0
        for letter in chosen:
            operation = replay_letter(
                config.queue_prefix, letter, result_ttl_s=config.result_ttl_s, max_queue=config.max_queue
            )
            try:
                replayed = link.run(operation)
            except DeadLetterError as error:  # keep this letter and replay the others
                output.notice(f"nameshot: {printable(str(error))}")
                failed += 1
                continue
            output.print_queued([replayed.job_id], [replayed.job_id])
            if replayed.lost_expires:
                reason = "has expired or would expire soon, so its new job does not expire"
                output.notice(f"nameshot: the job of {letter.letter} {reason}.")
    return 1 if failed else 0


def _print_table(letters: list[DeadLetter]) -> None:
    """Print a row for each letter, with its full id even on a narrow terminal, because `show` and `replay` need it."""
    rows: list[tuple[str, ...]] = [("LETTER", "AT", "CODE", "DEATHS", "QUEUE", "JOB")]
    for letter in letters:
        image = "" if letter.image is None else f" image {letter.image}"
        job = "–" if letter.job_id is None else f"{letter.job_id}{image}"
        cells = (letter.letter, letter.at, letter.code, str(letter.deaths), letter.queue, job)
        rows.append(tuple(map(printable, cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
