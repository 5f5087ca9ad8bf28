"""``nameshot status``, ``result``, ``cancel`` and ``forget``: act on a submitted job."""

from __future__ import annotations

from typing import Annotated

import typer

from producer.cli import options, output
from producer.cli.connection import connect
from producer.cli.failures import error_to_json
from producer.errors import JobCancelled, JobExpired, JobFailed, ResultTimeout

JobId = Annotated[str, typer.Argument(help="The job's id, from `nameshot submit`.", metavar="ID")]


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

    Exits with status 1 if there is no answer yet, or if the job did not succeed.
    """
    from producer.cli.show import print_result

    with connect() as client:
        job = client.job(job_id)
        try:
            answer = job.result(wait)
        except ResultTimeout:
            state = job.status()
            raise ResultTimeout(
                f"job {job_id} is {state} and has no answer yet; wait for it with --wait SECONDS."
            ) from None
        except (JobFailed, JobCancelled, JobExpired) as error:
            if not as_json:
                raise
            output.print_json({"id": job_id, "error": error_to_json(error)})
            return 1
    if as_json:
        output.print_json({"id": job_id, "result": answer.to_dict()})
    else:
        print_result(output.console(), job_id, answer)
    return 0


def cancel(job_id: JobId, as_json: options.AsJson = False) -> int:
    """Cancel a job that has no answer yet.

    Exits with status 1 if the job already has an answer, which remains.
    """
    with connect() as client:
        cancelled = client.job(job_id).cancel()
    if as_json:
        output.print_json({"id": job_id, "cancelled": cancelled})
    elif cancelled:
        print("cancelled")
    else:
        output.notice(f"nameshot: job {job_id} already has an answer; `nameshot result {job_id}` prints it.")
    return 0 if cancelled else 1


def forget(job_id: JobId, as_json: options.AsJson = False) -> int:
    """Free the id of a job that is answered or lost.

    This deletes the answer; any job may then use the id. Exits with status 1 if no id was freed.
    """
    with connect() as client:
        job = client.job(job_id)
        forgotten = job.forget()
        state = "" if forgotten else job.status()
    if as_json:
        output.print_json({"id": job_id, "forgotten": forgotten})
    elif forgotten:
        print("forgotten")
    elif state == "unknown":
        output.notice(f"nameshot: job {job_id} is unknown, so its id is free.")
    else:
        output.notice(f"nameshot: job {job_id} is {state}; cancel it first, or wait for its answer.")
    return 0 if forgotten else 1
