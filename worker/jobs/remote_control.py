"""Restricts Celery's remote control: which commands a worker runs, and where it sends replies.

Any program that may publish to the broker's channel ``/<database>.celery.pidbox`` can command all workers of that
database, so these messages are untrusted. The allowed commands inspect a worker, switch its events on or off, revoke
jobs, shut the worker down, or have it stop or resume taking from a queue. A worker replies with an error to all other
commands: those that would keep messages in its memory, change its pool or its limits, or write files, and those of
later Celery versions. It ignores broadcasts with regular expressions, which could block the event loop.
"""

from __future__ import annotations

import logging
import os
import re
import signal
from collections.abc import Callable, Container
from typing import Any, Final

from celery.app.control import Control
from celery.utils.functional import maybe_list
from celery.utils.serialization import jsonify
from celery.worker.control import Panel
from kombu import pidbox
from kombu.utils.encoding import safe_repr

from producer.contract.names import QUEUES, queue_name
from worker.jobs.messages import is_id
from worker.jobs.running_worker import worker_of

logger = logging.getLogger(__name__)

#: These Celery commands only inspect a worker; `worker.jobs.requests` keeps the content of jobs out of their replies.
INSPECTIONS: Final = (
    "active",
    "active_queues",
    "clock",
    "ping",
    "query_task",
    "registered",
    "reserved",
    "revoked",
    "scheduled",
)
EVENTS: Final = ("enable_events", "disable_events", "heartbeat")
#: The error for a refused command names its reason or the alternative.
ALTERNATIVES: Final = {
    **dict.fromkeys(
        ("pool_grow", "pool_shrink", "autoscale", "pool_restart"),
        "start the worker with another NAMESHOT_CONCURRENCY",
    ),
    "rate_limit": "messages above the limit would wait in the worker's memory",
    "time_limit": "start the worker with another NAMESHOT_JOB_TIMEOUT",
    "revoke_by_stamped_headers": "nameshot ignores stamps; revoke jobs by their ids",
}
_PARTS: Final = ("method", "arguments", "destination", "pattern", "matcher", "reply_to", "ticket")
#: The name of a kombu mailbox is a UUID of any version.
_ADDRESS: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def register() -> None:
    """Have Celery's commands that are not listed above return an error, and replace some commands by our own."""
    names = {meta.alias: name for name, meta in Panel.meta.items()}
    for command in list(Panel.data):
        if names.get(command, command) not in {*INSPECTIONS, *EVENTS}:
            Panel.data[command] = _refusal(command)
    Panel.register(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")(_revoke)
    Panel.register(
        name="terminate", variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]"
    )(_revoke)
    Panel.register(name="hello", type="inspect", visible=False)(_hello)
    Panel.register(name="stats", type="inspect")(_stats)
    Panel.register(name="conf", alias="dump_conf", type="inspect")(_conf)
    Panel.register(name="shutdown")(_shutdown)
    queue_argument = {"args": [("queue", str)], "signature": "<queue>"}
    Panel.register(name="add_consumer", **queue_argument)(_add_consumer)
    Panel.register(name="cancel_consumer", **queue_argument)(_cancel_consumer)


def _refusal(command: str) -> Callable[..., dict[str, str]]:
    why = ALTERNATIVES.get(command, "it is not among the supported commands")

    def refuse(_state: Any, **_: Any) -> dict[str, str]:
        return {"error": f"nameshot's workers refuse {command}: {why}"}

    return refuse


def _revoke(state: Any, task_id: Any = None, **_: Any) -> dict[str, str]:
    """Revoke tasks by id (or list of ids); running ones are stopped, with or without terminate."""
    # A text that cannot be a job's id could forge a log line.
    job_ids = [job_id for job_id in maybe_list(task_id) or [] if is_id(job_id)]
    worker_of(state.app).revoker.revoke(job_ids)
    return {"ok": f"tasks {', '.join(job_ids)} flagged as revoked"}


def _hello(state: Any, **_: Any) -> dict[str, Any]:
    """Reply to a starting worker, perhaps another application's, with no revoked ids, and store none of its ids."""
    return {"revoked": [], "clock": state.app.clock.forward()}


def _stats(state: Any, **_: Any) -> dict[str, Any]:
    """Show statistics of the worker."""
    stats: dict[str, Any] = state.consumer.controller.stats()
    stats["broker"] = {name: stats["broker"].get(name) for name in ("hostname", "port", "virtual_host")}
    return stats


def _conf(state: Any, with_defaults: Any = False, **_: Any) -> Any:
    """Show Celery's configuration without the settings of the worker's connections."""
    shown = jsonify(state.app.conf.table(with_defaults=bool(with_defaults)), unknown_type_filter=safe_repr)
    return {name: value for name, value in shown.items() if not name.startswith(("_", "broker_", "result_backend"))}


def _shutdown(_state: Any, **_: Any) -> dict[str, str]:
    """Shut down as after SIGTERM: jobs have NAMESHOT_DRAIN_TIMEOUT to finish. `nameshot worker` starts a new worker."""
    # Celery's own command waits for running jobs without a limit, and does not log that it was called.
    logger.warning("shutting down on a remote control command")
    os.kill(os.getpid(), signal.SIGTERM)
    return {"ok": "shutting down: running jobs have NAMESHOT_DRAIN_TIMEOUT to finish"}


def _add_consumer(state: Any, queue: Any = None, **_: Any) -> dict[str, str]:
    """Take messages from one of the queues again, after cancel_consumer."""
    if refusal := _unknown(state, queue):
        return refusal
    state.consumer.add_task_queue(queue)
    return {"ok": f"this worker takes messages from {queue}"}


def _cancel_consumer(state: Any, queue: Any = None, **_: Any) -> dict[str, str]:
    """Take no more messages from one of the queues until add_consumer or a restart; finish those in hand."""
    if refusal := _unknown(state, queue):
        return refusal
    state.consumer.cancel_task_queue(queue)
    return {"ok": f"this worker takes no more messages from {queue}"}


def _unknown(state: Any, queue: Any) -> dict[str, str] | None:
    """Return an error unless `queue` is one of our queues, because a worker must not take from any other list."""
    ours = [queue_name(worker_of(state.app).queue_prefix, name) for name in QUEUES]
    return None if queue in ours else {"error": f"this is not a queue of this worker, which has {', '.join(ours)}"}


#: Kombu's annotations of these classes are incomplete and wrong.
_Node: Any = pidbox.Node
_Mailbox: Any = pidbox.Mailbox


class CarefulNode(_Node):  # type: ignore[misc]  # the base has type Any
    """Runs only valid commands, and replies only to kombu's mailboxes."""

    def handle_message(self, body: Any, message: Any = None) -> Any:  # noqa: ARG002 - its headers are untrusted
        """Run a command if the broadcast is valid and for this worker."""
        if fault := _fault(body, self.handlers):
            logger.warning("ignored a broadcast: %s", fault)
            return None
        return super().handle_message({name: body.get(name) for name in _PARTS})

    def handle(self, method: str, arguments: Any = None) -> Any:
        """Run a command as kombu does; if the command raises, log one line and return an error to reply with."""
        try:
            return super().handle(method, arguments)
        except Exception as error:
            logger.warning("the command %s failed with %s", method, type(error).__name__)
            return {"error": f"{method} failed with {type(error).__name__}; check its arguments"}

    def dispatch(self, method: str, arguments: Any = None, reply_to: Any = None, ticket: Any = None, **_: Any) -> Any:
        """Dispatch as kombu does, but ignore a command with a reply address that is no mailbox of kombu's.

        The sender may have no permission to write to the key that the address names.
        """
        if reply_to:
            exchange = self.mailbox.reply_exchange.name
            address = reply_to.get("routing_key") if isinstance(reply_to, dict) else None
            if not isinstance(address, str) or not _ADDRESS.fullmatch(address) or reply_to.get("exchange") != exchange:
                logger.warning("ignored the command %s: its reply address is not a mailbox", method)
                return None
            reply_to = {"exchange": exchange, "routing_key": address}
        return super().dispatch(method, arguments, reply_to=reply_to, ticket=ticket)

    def reply(self, *args: Any, **options: Any) -> None:
        """Reply as kombu does; if that fails, log one line, because the client can send its command again."""
        try:
            super().reply(*args, **options)
        except Exception as error:
            logger.warning("could not reply to a command: %s", type(error).__name__)


def _fault(body: Any, commands: Container[str]) -> str | None:
    """Return why a broadcast is not a valid command; None if it is valid, for this worker or another."""
    if not isinstance(body, dict) or not isinstance(method := body.get("method"), str) or method not in commands:
        return "it is not a known command"
    if not isinstance(body.get("arguments"), dict | None) or not isinstance(body.get("destination"), list | None):
        return f"{method} has arguments or a destination of the wrong type"
    if (pattern := body.get("pattern")) and not (isinstance(pattern, str) and body.get("matcher") == "glob"):
        return f"{method} has a pattern that is not a glob"
    return None


class CarefulMailbox(_Mailbox):  # type: ignore[misc]  # the base has type Any
    """A mailbox whose node is a `CarefulNode`."""

    node_cls = CarefulNode


class CarefulControl(Control):  # type: ignore[misc]  # celery is untyped
    """The app's ``control``, with a `CarefulMailbox`."""

    Mailbox = CarefulMailbox
