"""``nameshot demo``, ``up``, ``env`` and ``worker``: run parts of the system, or print how to reach them."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from producer.cli import output
from producer.errors import NameshotError, UsageError

DEFAULT_PORT: Final = 8000
#: The maximum number of fronts per engine process; no host has as many cores per GPU.
MAX_PROCESSES: Final = 64


def demo() -> int:
    """Start a whole system, classify the bundled pictures, and stop it.

    The demo runs an embedded Valkey and a real worker with the bundled toy model. It needs no setup and leaves no files
    behind.
    """
    from producer.cli.show import print_result
    from producer.contract.result import Result
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
        f"Every picture was classified correctly. To try your own pictures, run `{own_command()} up`.",
        markup=False,
        soft_wrap=True,
    )
    return 0


def up(
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port of the picture server; 0 selects any free port.")
    ] = DEFAULT_PORT,
    redis_port: Annotated[
        int | None,
        typer.Option(
            "--redis-port",
            min=1,
            max=65_535,
            help="Port of Valkey; by default the port of the last run, or in the first run any free port.",
            metavar="PORT",
        ),
    ] = None,
) -> int:
    """Run a whole system on this machine until Ctrl-C.

    The system is Valkey, one worker and a picture server, reachable only from this machine. Other commands, such as
    `nameshot classify`, find it automatically; your programs and `nameshot worker` find it in a shell in which you run
    eval "$(nameshot env)". NAMESHOT_MODEL replaces the bundled toy model.
    """
    from producer.cli.running import run_up
    from producer.processes.raised_signals import Stopped, raised_signals

    try:
        with raised_signals() as signals:
            _require_worker()
            run_up(port, redis_port, own_command(), signals.raise_if_stopped)
    except Stopped as stopped:
        # Ctrl-C is the usual way to end this command, so it counts as success.
        return 0 if stopped.signal_number == signal.SIGINT else 128 + stopped.signal_number
    return 0


def env() -> None:
    """Print the settings with which your programs reach the running `nameshot up`.

    In the programs' shell, run: eval "$(nameshot env)". The output contains the password of this user's Valkey.
    """
    from producer.cli.connection import absent_system
    from producer.embedded.home import running_up

    if (running := running_up()) is None:
        why = absent_system() or "`nameshot up` is not running here, so start it in another terminal first"
        raise NameshotError(f"{why}.")
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
            help="Number of processes that fetch and decode for each device; one more process holds the model.",
            metavar="N",
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            "--gpus",
            help="GPUs to run workers on, one worker per GPU: `all`, a list of numbers, or `none`.",
            metavar="none|N,M|all",
        ),
    ] = None,
) -> int:
    """Run the worker with the environment's settings, and restart it when it dies.

    On SIGTERM the worker finishes its running jobs; a second SIGTERM ends it at once.
    """
    if gpus is not None and gpus not in {"none", "all"}:
        numbers = gpus.split(",")
        if not all(number.isdecimal() and number.isascii() for number in numbers):
            raise UsageError(f"--gpus {gpus} is not `none`, `all`, or a list of numbers such as 0 or 0,1.")
        if len({int(number) for number in numbers}) < len(numbers):
            raise UsageError(f"--gpus {gpus} names a GPU twice; name each GPU once.")
    _require_worker()
    from importlib import import_module

    # Imported by name, since this package must not depend on the worker, which loads torch.
    status: int = import_module("worker.command").launch(gpus=gpus, processes=processes)
    return status


def _require_worker() -> None:
    from importlib.util import find_spec

    for module in ("worker", "celery", "torch", "transformers", "PIL"):
        if find_spec(module) is None:
            raise NameshotError(
                f"the worker is not installed ({module} is missing); install it from the project's folder with "
                "`pip install '.[worker,embedded]'`."
            )


def own_command() -> str:
    """Return the command that runs this program from another terminal in the same folder."""
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
