"""``nameshot classify`` and ``nameshot submit``."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from producer.cli import options, output
from producer.cli.connection import connect, image_url, running_system
from producer.cli.failures import UNSUCCESSFUL, because_no_worker, error_to_json, sentence, shown_image
from producer.cli.missing_worker import told_of_missing_workers
from producer.errors import InvalidJob, JobNotFound, NameshotError, ResultTimeout, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from producer.cli.thumbnail import Method
    from producer.client.jobs import Job

Images = Annotated[
    list[str], typer.Argument(help="URLs of images; while `nameshot up` runs, also local files.", metavar="IMAGE...")
]


def classify(
    images: Images,
    label: options.Labels = None,
    labels_file: options.LabelsFile = None,
    template: options.Template = None,
    top_k: options.TopK = None,
    download_timeout: options.DownloadTimeout = None,
    retries: options.Retries = 0,
    queue: options.QueueName = "default",
    wait: options.Wait = 120.0,
    show: options.Show = None,
    as_json: options.AsJson = False,
) -> int:
    """Classify images and print their rankings.

    Exits with status 1 if an image could not be classified. A job that has no answer in time continues, and the command
    prints its id. Ctrl-C cancels the jobs that have no answer yet.
    """
    from producer.cli.thumbnail import drawing_method
    from producer.operations.workers import is_unserved
    from producer.processes.raised_signals import Stopped, raised_signals

    shared = {"retries": retries, **options.question(label, labels_file, template, top_k, download_timeout)}
    urls = _urls(images)
    console = output.console()
    method = drawing_method(console, images, show=False if as_json else show)
    with raised_signals(), connect() as client:
        # With ids of its own, the command can cancel jobs even if it is stopped while it sends them.
        unanswered = deque(client.job(str(uuid4())) for _ in urls)
        try:
            client.submit_many(
                {"url": url, "job_id": each.id, "queue": queue, **shared}
                for url, each in zip(urls, unanswered, strict=True)
            )
            options.warn_of_single_label(shared["labels"])
            deadline = time.monotonic() + wait
            failed = 0
            with told_of_missing_workers(lambda prefix: is_unserved(prefix, queue)) as answered:
                for number, image in enumerate(images, start=1):
                    which = _which(images, number)
                    failed += not _print_answer(
                        console, image, which, unanswered[0], deadline, method=method, as_json=as_json
                    )
                    unanswered.popleft()
                    answered()
        except Stopped as stopped:
            output.notice(f"nameshot: stopped{_cancel(unanswered)}.")
            return 128 + stopped.signal_number
    return 1 if failed else 0


def submit(
    images: Images,
    label: options.Labels = None,
    labels_file: options.LabelsFile = None,
    template: options.Template = None,
    top_k: options.TopK = None,
    download_timeout: options.DownloadTimeout = None,
    retries: options.Retries = 0,
    queue: options.QueueName = "default",
    job_id: Annotated[
        str | None,
        typer.Option("--id", help="A job id of your own; the same job submitted twice is queued once.", metavar="ID"),
    ] = None,
    expires_in: Annotated[
        float | None,
        typer.Option("--expires-in", help="Seconds after which a worker no longer starts the job.", metavar="S"),
    ] = None,
    as_json: options.AsJson = False,
) -> int:
    """Queue a job for each image and print the jobs' ids.

    Prints one id per line, for `nameshot status`, `result` and `cancel`.
    """
    from producer.messages.submission import check_expires_in, check_job_id

    question = options.question(label, labels_file, template, top_k, download_timeout)
    shared = {"queue": queue, "retries": retries, **question}
    if job_id is not None and len(images) > 1:
        raise UsageError("--id names a single job; give only one image with it.")
    try:
        if job_id is not None:
            shared["job_id"] = check_job_id(job_id, "--id")
        if expires_in is not None:
            shared["expires_in"] = check_expires_in(expires_in, "--expires-in")
    except InvalidJob as error:
        raise UsageError(str(error)) from None
    urls = _urls(images)
    with connect() as client:
        jobs = client.submit_many({"url": url, **shared} for url in urls)
    ids = [job.id for job in jobs]
    lines = [{"url": image, "id": job.id, "is_new": job.is_new} for image, job in zip(images, jobs, strict=True)]
    output.print_queued(ids, lines if as_json else ids)
    for job in jobs:
        if job.is_new is False:
            output.notice(f"nameshot: the job {job.id} existed already, so nothing was queued.")
    options.warn_of_single_label(shared["labels"])
    return 0


def _urls(images: list[str]) -> list[str]:
    """Return the URL to send for each image; raise `UsageError`, with the image's number, at the first unusable one."""
    urls, up = [], running_system()
    for number, image in enumerate(images, start=1):
        try:
            urls.append(image_url(image, up))
        except UsageError as error:
            raise error if len(images) == 1 else UsageError(f"{_which(images, number)}: {error}") from None
    return urls


def _which(images: list[str], number: int) -> str:
    """Return the name that messages on standard error use for one of the images."""
    shown = shown_image(images[number - 1])
    return shown if len(images) == 1 else f"image {number}, {shown}"


def _cancel(jobs: Iterable[Job]) -> str:
    """Cancel the jobs that have no answer; return a clause with their number, or an empty string if there are none."""
    cancelled = 0
    try:
        for job in jobs:
            with contextlib.suppress(JobNotFound):
                cancelled += job.cancel()
    except NameshotError as error:
        return (
            f"; the jobs without an answer continue, since they could not be cancelled: {sentence(error).rstrip('.')}"
        )
    return f"; cancelled {output.counted(cancelled, 'job')} that had no answer yet" if cancelled else ""


def _print_answer(
    console: Console, image: str, which: str, job: Job, deadline: float, *, method: Method | None, as_json: bool
) -> bool:
    """Wait for one job and print its outcome; return whether its image was classified."""
    from producer.cli.show import print_result
    from producer.cli.thumbnail import draw

    try:
        result = _await_result(job, deadline)
    except (*UNSUCCESSFUL, ResultTimeout) as error:
        if as_json:
            output.print_json({"url": image, "id": job.id, "error": error_to_json(error)})
        else:
            output.notice(f"nameshot: {which}: {sentence(error)}")
        return False
    if as_json:
        output.print_json({"url": image, "id": job.id, "result": result.to_dict()})
    else:
        print_result(console, image, result, draw(console, image, method) if method is not None else None)
    return True


def _await_result(job: Job, deadline: float) -> Any:
    remaining = max(0.0, deadline - time.monotonic())
    with output.waiting("waiting for a worker's answer…"):
        try:
            return job.result(remaining)
        except ResultTimeout as error:
            raise ResultTimeout(
                f"there is no answer yet{because_no_worker(error)}, but the job continues; get its answer with "
                f"`nameshot result {job.id}`.",
                no_worker=error.no_worker,
            ) from None
