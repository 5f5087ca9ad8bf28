"""``nameshot demo``, ``up`` and ``worker``: the commands that run parts of the system."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from producer.cli import output
from producer.cli.usage import UsageError
from producer.errors import NameshotError

DEFAULT_PORT: Final = 8000
#: Fronts of one engine; more cores than any GPU's host has for each.
MAX_PROCESSES: Final = 64


def demo() -> int:
    """See it work: start everything, classify pictures, stop.

    An embedded Valkey, a real worker with the bundled toy model, and pictures that come with it; nothing else is
    needed, and nothing is left behind.
    """
    from producer.cli.show import print_result
    from producer.contract import Result
    from producer.demo.gallery import Picture
    from producer.demo.run import run_demo
    from producer.processes.raised_signals import Stopped, raised_signals

    console = output.console()

    def show(picture: Picture, result: Result) -> None:
        print_result(console, f"{picture.file}: {', '.join(picture.candidate_labels)}?", result)

    try:
        with raised_signals() as signals, output.StartProgress() as stages:
            _require_worker()
            run_demo(stages.announce, show, signals.raise_if_stopped)
    except Stopped as stopped:
        return 128 + stopped.signal_number
    console.print(
        f"Every picture was named right. To try your own: `{own_command()} up`, and see what it says.",
        markup=False,
        soft_wrap=True,
    )
    return 0


def up(
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Where pictures are served; 0 takes any free port.")
    ] = DEFAULT_PORT,
) -> int:
    """Keep a whole system running here until Ctrl-C.

    Valkey, one worker and a picture server, reachable from this machine only. Other commands, such as
    `nameshot classify`, find it by themselves. NAMESHOT_MODEL may name another model than the bundled toy.
    """
    from producer.cli.running import run_up
    from producer.processes.raised_signals import Stopped, raised_signals

    try:
        with raised_signals() as signals:
            _require_worker()
            run_up(port, own_command(), signals.raise_if_stopped)
    except Stopped as stopped:
        # Ctrl-C is how this command is meant to end.
        return 0 if stopped.signal_number == signal.SIGINT else 128 + stopped.signal_number
    return 0


def env() -> None:
    """Print how programs of your own reach the running `nameshot up`.

    In their shell: eval "$(nameshot env)". The lines hold a password of this user's own Valkey.
    """
    from producer.embedded.home import running_up

    if (running := running_up()) is None:
        raise NameshotError("`nameshot up` does not run here; start it in another terminal first.")
    for name, value in (
        ("NAMESHOT_BROKER_URL", running.broker_url),
        ("NAMESHOT_RESULT_BACKEND", running.result_backend),
        ("NAMESHOT_QUEUE_PREFIX", running.queue_prefix),
    ):
        print(f"export {name}={shlex.quote(value)}")


def worker(
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            min=1,
            max=MAX_PROCESSES,
            help="Fetch and decode in so many processes for each device, whose model one more process holds.",
            metavar="N",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus", help="A worker process for each: `all`, their numbers, or `none`.", metavar="none|N,M|all"
        ),
    ] = None,
) -> int:
    """Run the worker with the environment's settings, and start it again when it dies.

    SIGTERM lets it finish what it has; a second one ends it at once.
    """
    if gpus is not None and gpus not in {"none", "all"}:
        numbers = gpus.split(",")
        if not all(number.isdecimal() and number.isascii() for number in numbers):
            raise UsageError(f"--gpus {gpus} is neither `none` nor `all` nor numbers such as 0 or 0,1.")
        if len({int(number) for number in numbers}) < len(numbers):
            raise UsageError(f"--gpus {gpus} names a GPU twice; one process drives one GPU.")
    _require_worker()
    from importlib import import_module

    # By name: this package never imports the worker's, which brings torch.
    status: int = import_module("worker.command").launch(gpus=gpus, processes=processes)
    return status


def _require_worker() -> None:
    from importlib.util import find_spec

    for module in ("worker", "celery", "torch", "transformers", "PIL"):
        if find_spec(module) is None:
            raise NameshotError(
                f"the worker's part is not installed ({module} is missing); install it from the project's folder with "
                "`pip install '.[worker,embedded]'`."
            )


def own_command() -> str:
    """How a person calls this command in another terminal of the same folder."""
    from shutil import which

    script = Path(sys.argv[0])
    if script.name != "nameshot" or not script.is_file():
        return "nameshot"
    found = which("nameshot")
    if found is not None and Path(found).resolve() == script.resolve():
        return "nameshot"
    try:
        return str(script.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(script.absolute())
