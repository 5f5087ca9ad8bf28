"""``nameshot purge``: delete a queue's waiting jobs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from producer.cli import options, output
from producer.cli.connection import link_to_redis
from producer.cli.failures import refusal
from producer.contract.names import Queue
from producer.errors import UsageError


def purge(
    queue: Annotated[
        Queue, typer.Argument(help="The queue: high, default or bulk.", metavar="QUEUE", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    as_json: options.AsJson = False,
) -> int:
    """Delete a queue's waiting jobs and free their ids.

    A client that waits for one of these jobs gets `JobNotFound`; `classify_many` and `nameshot bulk` send theirs again.
    Jobs that a worker holds continue. In a terminal the command asks first; elsewhere it needs --yes.
    """
    from producer.operations.backlog import queue_depths
    from producer.operations.purging import purge as delete_waiting

    if not yes and not sys.stdin.isatty():
        raise UsageError("without a terminal the command cannot ask, so nothing was deleted; to delete, give --yes.")
    with link_to_redis() as (link, config):
        if not yes:
            waiting = link.run(queue_depths(config.queue_prefix))[queue]
            if not typer.confirm(f"Delete the waiting jobs in {config.queue_prefix}.{queue} ({waiting:,})?", err=True):
                if as_json:
                    output.print_json({"queue": queue, "purged": 0, **refusal("nothing was deleted.")})
                else:
                    output.notice("nameshot: nothing was deleted.")
                return 1
        purged = link.run(delete_waiting(config.queue_prefix, queue))
    if as_json:
        output.print_json({"queue": queue, "purged": purged})
    else:
        print(f"deleted {output.counted(purged, 'waiting job')} from {queue}")
    return 0
