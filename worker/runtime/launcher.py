"""``nameshot worker``: a small process that starts the workers of this machine and restarts those that die.

There is one worker per device, or, with ``--processes``, one engine process per device and its fronts. The launcher
loads neither the model's libraries nor Celery. Whenever it receives SIGTERM, SIGINT or SIGHUP, it sends SIGTERM to its
processes; it forwards SIGQUIT, and also SIGUSR1, on which the processes print their threads' stacks.
`worker.delivery.shutdown` describes how workers react, and an engine ends once its fronts have ended. The launcher
kills processes that do not end in time, and engines that send no heartbeats. If the launcher dies, the kernel sends
SIGTERM to its processes, and continues those that are stopped.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Final

from producer.errors import SettingsError
from producer.processes.child import LeashedProcess
from producer.processes.keeper import POLL_INTERVAL_S, Supervisor
from producer.processes.queued_signals import SAME_REQUEST_S, QueuedSignals, queued_signals
from producer.settings import read_settings
from worker.runtime import logs
from worker.runtime.fleet import ProcessSpec, all_take_jobs, engine_and_fronts, one_for_each, private_folder
from worker.runtime.heartbeat import HeartbeatMonitor
from worker.runtime.kept_folder import KeptFolder
from worker.runtime.ready_file import ReadyFile
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)

#: The option -P prevents Python from importing a folder named ``worker`` in the current directory.
_PYTHON: Final = (sys.executable, "-P")
WORKER: Final = (*_PYTHON, "-m", "worker")
ENGINE: Final = (*_PYTHON, "-m", "worker.engine_process")
_COUNT_GPUS: Final = (*_PYTHON, "-c", "from worker.model.devices import visible_gpus; print(visible_gpus())")
#: Counting the GPUs may take this long: torch loads in less time even from a slow disk, but a driver may hang forever.
_COUNT_TIMEOUT_S: Final = 120.0

#: The launcher waits this much longer than ``NAMESHOT_DRAIN_TIMEOUT``, so that workers can requeue jobs in a slow Redis
#: and engines can end. With the default timeout, this leaves ten of the thirty seconds that Kubernetes gives a
#: container.
LEAVING_S: Final = 10.0
#: After SIGQUIT or a second signal the launcher waits this long before it kills processes that still run.
AT_ONCE_S: Final = 5.0


class _Refused(Exception):
    """A worker could not use its configuration or its model, and has logged why."""


class _Worker:
    """A process that the launcher runs (a worker, a front or an engine), and the processes that replace it."""

    def __init__(self, spec: ProcessSpec, silence_limit_s: float) -> None:
        self.name, self._spec = spec.name, spec
        self._monitor = HeartbeatMonitor(silence_limit_s) if spec.sends_heartbeats else None
        self.ready_file = ReadyFile(spec.ready_file)
        self.restart()

    def restart(self) -> None:
        with self._monitor.monitor_next() if self._monitor else nullcontext() as descriptor:
            inherit = [] if descriptor is None else [descriptor]
            self.process = LeashedProcess(
                [*self._spec.command, *map(str, inherit)],
                folder=Path.cwd(),
                environment=self._spec.environment,
                death_signal=signal.SIGTERM,
                inherit=inherit,
            )

    def kill_if_frozen(self) -> None:
        if self._monitor is None or not self.process.is_running():
            return
        if frozen_reason := self._monitor.frozen_reason(self.process.pid):
            logger.error("%s %s: killing it.", self.name, frozen_reason)
            self.process.send(signal.SIGKILL)

    def on_death(self, _deaths: int, _what_happened: str) -> None:
        """Handle the death of the process; raise `_Refused` if a restart cannot help."""
        self.ready_file.remove()  # a killed process does not remove its file
        if self.process.status() == os.EX_CONFIG:
            raise _Refused(self.name)


def launch(
    *,
    gpus: str | None = None,
    processes: int | None = None,
    command: Sequence[str] = WORKER,
    engine: Sequence[str] = ENGINE,
) -> int:
    """Run the workers until a signal stops them; call this in the main thread.

    Args:
        gpus: ``none`` starts one worker on the CPU; ``all``, or device numbers as in ``0,1``, start a worker on each
            GPU; None starts one worker on the device in ``NAMESHOT_DEVICE``.
        processes: the number of fronts of each device's engine process; None starts workers without engine processes.
        command: a worker's command; a front gets its engine's socket and the number of fronts as arguments.
        engine: an engine's command; it gets its socket and a descriptor for heartbeats as arguments.

    Returns:
        The exit status: 0 if all workers ended cleanly, 78 if one cannot use its configuration or model, 1 otherwise.

    Raises:
        SettingsError: ``all`` was given and PyTorch finds no GPU, a setting allows only a single worker, or fronts
            cannot run on this system.
    """
    logs.configure("INFO", "human")
    workers: list[_Worker] = []
    signal.signal(signal.SIGUSR1, lambda *_: _print_stacks(workers))
    try:
        settings = read_settings(WorkerSettings)
        logs.configure(settings.log_level, settings.log_format)
        ReadyFile(settings.ready_file).prepare()
    except SettingsError as error:
        logger.critical("%s", error)
        return os.EX_CONFIG
    devices = _devices(gpus)
    if processes is None and len(devices) > 1 and settings.ready_file:
        raise SettingsError(
            f"NAMESHOT_READY_FILE describes a single worker, but --gpus {gpus} starts {len(devices)}: unset the "
            "variable and check each worker's /readyz, or run this command once for each GPU."
        )
    folders = [KeptFolder(Path(settings.ready_file).absolute().parent)] if settings.ready_file else []
    with queued_signals() as signals, ExitStack() as stack:
        if processes is None:
            specs = list(one_for_each(devices, command))
        else:
            folder = stack.enter_context(private_folder())
            folders.append(folder)
            specs = list(engine_and_fronts(devices, processes, folder.path, front=command, engine=engine))
        # Without fronts, a ready file belongs to a single worker, which manages the file itself.
        ready = ReadyFile(settings.ready_file if processes else None, partial(all_take_jobs, specs))
        workers += [_Worker(spec, settings.job_timeout) for spec in specs]
        try:
            arrived = _supervise(workers, signals, ready, folders)
        except _Refused as refused:
            if len(workers) > 1:
                logger.error("%s cannot work: stopping all workers.", refused)
            _stop(workers, [signal.SIGTERM], signals, settings.drain_timeout)
            return os.EX_CONFIG
        return _stop(workers, arrived, signals, settings.drain_timeout)


def _print_stacks(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.process.send(signal.SIGUSR1)


def _devices(gpus: str | None) -> list[str]:
    """Return the value of ``NAMESHOT_DEVICE`` for each device; an empty value leaves the variable as it is."""
    if gpus is None:
        return [""]
    if gpus == "none":
        return ["cpu"]
    numbers = range(_visible_gpus()) if gpus == "all" else [int(number) for number in gpus.split(",")]
    return [f"cuda:{number}" for number in numbers]


def _visible_gpus() -> int:
    try:
        # A process of its own counts the GPUs, so that the launcher stays small and uses no GPU.
        answer = subprocess.run(  # noqa: S603 - no part of the command comes from a user
            _COUNT_GPUS, stdout=subprocess.PIPE, text=True, check=True, timeout=_COUNT_TIMEOUT_S
        )
    except subprocess.SubprocessError as error:
        raise SettingsError(f"--gpus all: PyTorch could not count the GPUs ({type(error).__name__}).") from None
    if not (found := int(answer.stdout)):
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "" if visible is None else f" (CUDA_VISIBLE_DEVICES is {visible!r})"
        raise SettingsError(f"--gpus all: PyTorch sees no GPU here{why}; use --gpus none for the CPU.")
    return found


def _supervise(
    workers: Sequence[_Worker], signals: QueuedSignals, ready: ReadyFile, folders: Sequence[KeptFolder]
) -> list[signal.Signals]:
    """Restart dead processes, kill frozen ones and restore folders until signals arrive; return these signals."""
    supervisors = [Supervisor(worker.name, worker, logger.error, on_death=worker.on_death) for worker in workers]
    try:
        while not (arrived := signals.wait(POLL_INTERVAL_S)):
            for folder in folders:
                folder.restore()
            for worker in workers:
                worker.kill_if_frozen()
            for supervisor in supervisors:
                supervisor.tick()
            ready.update()
    finally:
        ready.remove()  # do not wait for workers that still finish their jobs
    return arrived


def _stop(
    workers: Sequence[_Worker], arrived: list[signal.Signals], signals: QueuedSignals, drain_timeout_s: float
) -> int:
    """Forward signals until all workers have ended; kill those that are late, and return the exit status.

    Other workers requeue the messages of a killed worker after its lease has expired.
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
                logger.error("%s does not end: killing it.", worker.name)
                worker.process.stop(0)
        arrived = signals.wait(POLL_INTERVAL_S)
    # A worker that was still loading its model dies of the signal itself, which is a clean end.
    unclean = [worker for worker in running if -(worker.process.status() or 0) not in {0, *sent}]
    for worker in running:
        worker.ready_file.remove()
    for worker in unclean:
        logger.error("%s %s while stopping.", worker.name, worker.process.describe_exit())
    return 1 if unclean else 0
