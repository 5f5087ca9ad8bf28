"""``nameshot worker``: a small process that starts the workers of this machine, and starts again what dies.

A worker for each device, or, with a number of processes, an engine process for each device and its fronts. It loads
neither the model's libraries nor Celery. SIGTERM, SIGINT and SIGHUP are passed on as SIGTERM, a second one too, SIGQUIT
as it is; `worker.delivery.shutdown` says what a worker does with them, and an engine ends when its fronts have. What
does not end in its time is killed, and so is an engine that gives no more signs of life. A process whose launcher is
gone gets SIGTERM from the kernel.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Final

from producer.errors import SettingsError
from producer.processes.child import LeashedProcess
from producer.processes.keeper import POLL_INTERVAL_S, Supervisor
from producer.processes.queued_signals import SAME_REQUEST_S, QueuedSignals, queued_signals
from producer.settings import read_settings
from worker.runtime import logs
from worker.runtime.fleet import Fronts, engine_and_fronts, private_folder
from worker.runtime.heartbeat import SignsOfLife
from worker.runtime.ready_file import ReadyFile
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

#: -P: a folder of the same name where the user stands is not taken for the worker.
WORKER: Final = (sys.executable, "-P", "-m", "worker")
ENGINE: Final = (sys.executable, "-P", "-m", "worker.engine_process")
_COUNT_GPUS: Final = (
    sys.executable,
    "-P",
    "-c",
    "from worker.model.devices import visible_gpus; print(visible_gpus())",
)
#: torch loads in seconds from a slow disk; a driver that hangs never answers.
_COUNT_TIMEOUT_S: Final = 120.0


#: Beyond ``NAMESHOT_DRAIN_TIMEOUT``, for giving jobs back to a Redis that is slow, and then for an engine to end. With
#: the default there are ten seconds left of the thirty that Kubernetes, for one, gives a container.
LEAVING_S: Final = 10.0
#: The same for one that was told to end at once, by a second signal or SIGQUIT.
AT_ONCE_S: Final = 5.0


class _Refused(Exception):
    """A worker found its configuration or its model to be unusable; it said so itself."""


class _Worker:
    """One worker process after another, with the same environment."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], signs: SignsOfLife | None = None
    ) -> None:
        self.name = name
        self._command, self._environment, self._signs = command, environment, signs
        self.ready_file = ReadyFile(environment.get("NAMESHOT_READY_FILE"))
        self.restart()

    def restart(self) -> None:
        with self._signs.of_the_next() if self._signs else nullcontext() as signs:
            inherit = [] if signs is None else [signs]
            self.process = LeashedProcess(
                [*self._command, *map(str, inherit)],
                folder=Path.cwd(),
                environment=self._environment,
                death_signal=signal.SIGTERM,
                inherit=inherit,
            )

    def kill_if_frozen(self) -> None:
        if self._signs is None or not self.process.is_running():
            return
        if frozen_reason := self._signs.frozen_reason(self.process.pid):
            logger.error("%s %s: it is killed.", self.name, frozen_reason)
            self.process.send(signal.SIGKILL)

    def judge(self, _deaths: int, _what_happened: str) -> None:
        """What a `Supervisor` asks at each death."""
        self.ready_file.remove()  # what was killed left it there
        if self.process.status() == os.EX_CONFIG:
            raise _Refused(self.name)


def launch(
    *,
    gpus: str | None = None,
    processes: int | None = None,
    command: Sequence[str] = WORKER,
    engine: Sequence[str] = ENGINE,
) -> int:
    """Run the workers until told to stop; from the main thread.

    Args:
        gpus: ``none`` for the CPU, ``all``, or device numbers as in ``0,1``: a worker for each. None: one worker,
            with ``NAMESHOT_DEVICE`` as it is.
        processes: fronts of one engine process for each device; None: one process does both.
        command: what a worker process runs; a front gets its engine's socket and the number of fronts as arguments.
        engine: what an engine process runs; it gets its socket and a descriptor for signs of life as arguments.

    Returns:
        0 when all workers ended in order, 78 when one cannot use its configuration or model, 1 otherwise.

    Raises:
        SettingsError: ``all``, and there is no GPU; or the environment does not fit several workers.
    """
    logs.configure("INFO", "human")
    try:
        settings = read_settings(WorkerSettings)
        logs.configure(settings.log_level, settings.log_format)
        ReadyFile(settings.ready_file).begin()
    except SettingsError as error:
        logger.critical("%s", error)
        return os.EX_CONFIG
    devices = _devices(gpus)
    if processes is None and len(devices) > 1 and settings.ready_file:
        raise SettingsError(
            f"NAMESHOT_READY_FILE tells of one worker, and --gpus {gpus} starts {len(devices)}: unset it and ask each "
            "worker's /readyz, or run this command once for each GPU."
        )
    with queued_signals() as signals, ExitStack() as stack:
        fronts = Fronts()
        # A worker makes and removes its own.
        ready = ReadyFile(settings.ready_file if processes else None, fronts.are_ready)
        if processes is None:
            workers = [
                _Worker(
                    f"the worker on {device}" if len(devices) > 1 else "the worker",
                    command,
                    {**os.environ, "NAMESHOT_DEVICE": device} if device else os.environ,
                )
                for device in devices
            ]
        else:
            folder = stack.enter_context(private_folder())
            workers = [
                _Worker(
                    part.name,
                    part.command,
                    part.environment,
                    SignsOfLife(settings.job_timeout) if part.gives_signs_of_life else None,
                )
                for part in engine_and_fronts(devices, processes, folder, fronts, front=command, engine=engine)
            ]
        try:
            arrived = _keep(workers, signals, ready)
        except _Refused as refused:
            if len(workers) > 1:
                logger.error("%s cannot work: all workers are stopped.", refused)
            _stop(workers, [signal.SIGTERM], signals, settings.drain_timeout)
            return os.EX_CONFIG
        return _stop(workers, arrived, signals, settings.drain_timeout)


def _devices(gpus: str | None) -> list[str]:
    """A value of ``NAMESHOT_DEVICE`` for each worker; empty where the environment's stands."""
    if gpus is None:
        return [""]
    if gpus == "none":
        return ["cpu"]
    numbers = range(_visible_gpus()) if gpus == "all" else [int(number) for number in gpus.split(",")]
    return [f"cuda:{number}" for number in numbers]


def _visible_gpus() -> int:
    try:
        # Another process asks, so that this one stays small and holds nothing of a GPU.
        answer = subprocess.run(  # noqa: S603 - nothing of it comes from a user
            _COUNT_GPUS, stdout=subprocess.PIPE, text=True, check=True, timeout=_COUNT_TIMEOUT_S
        )
    except subprocess.SubprocessError as error:
        raise SettingsError(f"--gpus all: PyTorch could not count the GPUs ({type(error).__name__}).") from None
    if not (found := int(answer.stdout)):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        raise SettingsError(f"--gpus all: PyTorch sees no GPU here{why}; use --gpus none for the CPU.")
    return found


def _keep(workers: Sequence[_Worker], signals: QueuedSignals, ready: ReadyFile) -> list[signal.Signals]:
    """Start again what dies, and look at the rest, until signals arrive."""
    keepers = [Supervisor(worker.name, worker, logger.error, on_death=worker.judge) for worker in workers]
    try:
        while not (arrived := signals.wait(POLL_INTERVAL_S)):
            for worker in workers:
                worker.kill_if_frozen()
            for keeper in keepers:
                keeper.tick()
            ready.look()
    finally:
        ready.remove()  # not only once they have finished what they have
    return arrived


def _stop(
    workers: Sequence[_Worker], arrived: list[signal.Signals], signals: QueuedSignals, drain_timeout_s: float
) -> int:
    """Pass on the signals that arrived and those that follow, until all workers have ended: by themselves, or killed.

    What a killed one held goes back to the queues when its lease ends.
    """
    running = [worker for worker in workers if worker.process.is_running()]
    sent = set[int]()
    began_s = time.monotonic()
    kill_at_s = began_s + drain_timeout_s + LEAVING_S
    while late := [worker for worker in running if worker.process.is_running()]:
        now_s = time.monotonic()
        for number in arrived:
            forwarded = signal.SIGQUIT if number == signal.SIGQUIT else signal.SIGTERM
            sent.add(forwarded)
            for worker in running:
                worker.process.send(forwarded)
            if forwarded == signal.SIGQUIT or now_s - began_s > SAME_REQUEST_S:
                kill_at_s = min(kill_at_s, now_s + AT_ONCE_S)
        if now_s > kill_at_s:
            for worker in late:
                logger.error("%s does not end: it is killed.", worker.name)
                worker.process.stop(0)
        arrived = signals.wait(POLL_INTERVAL_S)
    # One that was still loading its model died of the signal itself.
    unclean = [worker for worker in running if -(worker.process.status() or 0) not in {0, *sent}]
    for worker in running:
        worker.ready_file.remove()
    for worker in unclean:
        logger.error("%s %s while it was to stop.", worker.name, worker.process.describe_exit())
    return 1 if unclean else 0
