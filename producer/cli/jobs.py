"""``nameshot status``, ``result``, ``wait``, ``cancel`` and ``forget``: act on a submitted job."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Annotated

import typer

from producer.cli import options, output
from producer.cli.connection import connect
from producer.cli.failures import UNSUCCESSFUL, because_no_worker, error_to_json, refusal, sentence
from producer.cli.missing_worker import told_of_missing_workers
from producer.errors import InvalidJob, NameshotError, ResultTimeout, UsageError

if TYPE_CHECKING:
    from producer.operations.answers import State


def _checked(job_id: str) -> str:
    """Return the id; raise `UsageError` if no job of ours can have it."""
    from producer.messages.submission import check_job_id

    try:
        return check_job_id(job_id, "ID")
    except InvalidJob as error:
        raise UsageError(str(error)) from None


def _all_checked(job_ids: list[str]) -> list[str]:
    return [_checked(job_id) for job_id in job_ids]


JobId = Annotated[str, typer.Argument(help="The job's id, from `nameshot submit`.", metavar="ID", callback=_checked)]


def status(job_id: JobId, as_json: options.AsJson = False) -> int:
    """Print a job's state.

    The state is queued, running, succeeded, failed, cancelled, expired or unknown; unknown exits with status 1.
    """
    with connect() as client:
        state = client.job(job_id).status()
    if as_json:
        output.print_json({"id": job_id, "status": state})
    else:
        print(state)
    return 1 if state == "unknown" else 0


def result(job_id: JobId, wait: options.Wait = 0.0, as_json: options.AsJson = False) -> int:
    """Print a job's answer.

    Exits with status 1 if the job did not succeed, and with 75 if there is no answer yet.
    """
    return _print_answers([job_id], wait, as_json=as_json)


def wait(
    job_ids: Annotated[
        list[str],
        typer.Argument(
            help="The jobs' ids, from `nameshot submit`.", metavar="ID...", show_default=False, callback=_all_checked
        ),
    ],
    wait: options.Wait = math.inf,
    as_json: options.AsJson = False,
) -> int:
    """Wait for jobs and print their answers, in the order of the ids.

    Exits with status 75 if a job had no answer in time, or else with 1 if one did not succeed.
    """
    return _print_answers(job_ids, wait, as_json=as_json)


def _print_answers(job_ids: list[str], wait_s: float, *, as_json: bool) -> int:
    """Wait for the answers, for at most ``wait_s`` seconds in all, and print them; return the exit status."""
    from producer.cli import EXIT_NO_ANSWER_YET
    from producer.cli.show import print_result
    from producer.operations.workers import lacks_worker

    console = output.console()
    failed = unanswered = False
    awaited = job_ids[0]
    with connect() as client, told_of_missing_workers(lambda prefix: lacks_worker(prefix, awaited)) as answered:
        deadline = time.monotonic() + wait_s
        for job in [client.job(job_id) for job_id in job_ids]:
            awaited = job.id
            try:
                with output.waiting("waiting for a worker's answer…"):
                    answer = job.result(max(0.0, deadline - time.monotonic()))
            except ResultTimeout as error:
                unanswered = True
                why = because_no_worker(error)
                advice = f"wait for it with `nameshot wait {job.id}`"
                late = ResultTimeout(
                    f"job {job.id} is {job.status()} and has no answer yet{why}; {advice}.", no_worker=error.no_worker
                )
                _print_error(job.id, late, as_json=as_json)
            except UNSUCCESSFUL as error:
                failed = True
                _print_error(job.id, error, as_json=as_json, prefix=f"{job.id}: " if len(job_ids) > 1 else "")
            else:
                if as_json:
                    output.print_json({"id": job.id, "result": answer.to_dict()})
                else:
                    print_result(console, job.id, answer)
            answered()
    return EXIT_NO_ANSWER_YET if unanswered else int(failed)


def _print_error(job_id: str, error: NameshotError, *, as_json: bool, prefix: str = "") -> None:
    if as_json:
        output.print_json({"id": job_id, "error": error_to_json(error)})
    else:
        output.notice(f"nameshot: {prefix}{sentence(error)}")


def cancel(job_id: JobId, as_json: options.AsJson = False) -> int:
    """Cancel a job that has no answer yet.

    Exits with status 1 if the job already has an answer, which remains.
    """
    with connect() as client:
        cancelled = client.job(job_id).cancel()
    reason = "" if cancelled else f"job {job_id} already has an answer; `nameshot result {job_id}` prints it."
    return _print_done(job_id, "cancelled", reason, as_json=as_json)


def forget(job_id: JobId, as_json: options.AsJson = False) -> int:
    """Free the id of a job that is answered or lost.

    This deletes the answer; any job may then use the id. Exits with status 1 if no id was freed.
    """
    with connect() as client:
        job = client.job(job_id)
        reason = "" if job.forget() else why_not_forgotten(job_id, job.status())
    return _print_done(job_id, "forgotten", reason, as_json=as_json)


def why_not_forgotten(job_id: str, state: State) -> str:
    """Return why `Job.forget` did not free an id, from the job's state afterwards."""
    if state == "unknown":
        return f"job {job_id} is unknown, so its id is free."
    if state in ("queued", "running"):
        return f"job {job_id} is {state}; cancel it first, or wait for its answer."
    return f"job {job_id} changed meanwhile and is {state} now; try again."


def _print_done(job_id: str, what: str, reason: str, *, as_json: bool) -> int:
    """Print whether something was done, and if not, the reason why; return the exit status."""
    if as_json:
        output.print_json({"id": job_id, what: not reason, **(refusal(reason) if reason else {})})
    elif reason:
        output.notice(f"nameshot: {reason}")
    else:
        print(what)
    return 1 if reason else 0
