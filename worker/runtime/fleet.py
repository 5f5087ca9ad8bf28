"""Lists the processes that the launcher runs: for each device a worker, or an engine process with several fronts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producer.errors import SettingsError
from worker.runtime.kept_folder import PRIVATE, KeptFolder
from worker.runtime.ready_file import is_kept

#: Linux limits the path of a Unix socket to 108 bytes, including the final zero byte (unix(7)).
_MAX_PATH_BYTES: Final = 107


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process that the launcher keeps running.

    Attributes:
        name: the process's name in log lines.
        command: the command line.
        environment: the whole environment.
        sends_heartbeats: whether the process sends heartbeats; if so, the launcher appends a descriptor to the
            command.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    sends_heartbeats: bool = False

    @property
    def ready_file(self) -> str | None:
        """The path of the file that exists while the process takes jobs; None if there is no such file."""
        return self.environment.get("NAMESHOT_READY_FILE")


def one_for_each(devices: Sequence[str], command: Sequence[str]) -> Iterator[ProcessSpec]:
    """Yield a worker without an engine process for each device.

    Args:
        devices: values of ``NAMESHOT_DEVICE``; an empty one leaves the variable as it is.
        command: a worker's command.
    """
    for device in devices:
        name = f"the worker on {device}" if len(devices) > 1 else "the worker"
        yield ProcessSpec(name, command, {**os.environ, **_on(device)})


def all_take_jobs(processes: Iterable[ProcessSpec]) -> bool:
    """Return whether every process with a ready file takes jobs."""
    return all(is_kept(Path(process.ready_file)) for process in processes if process.ready_file)


def engine_and_fronts(
    devices: Sequence[str],
    processes: int,
    folder: Path,
    *,
    front: Sequence[str],
    engine: Sequence[str],
) -> Iterator[ProcessSpec]:
    """Yield the processes of all devices, engines first.

    Args:
        devices: values of ``NAMESHOT_DEVICE``; an empty one leaves the variable as it is.
        processes: the number of fronts per device.
        folder: the folder for sockets; other users may not enter it.
        front: a front's command, without its last arguments: the engine's socket and the number of fronts.
        engine: an engine's command, without its last arguments: its socket and the descriptor for heartbeats.
    """
    environment = {name: value for name, value in os.environ.items() if name != "NAMESHOT_READY_FILE"}
    where = {device: f" on {device}" if len(devices) > 1 else "" for device in devices}
    sockets = {device: folder / f"engine-{number}" for number, device in enumerate(devices)}
    for device in devices:
        command = [*engine, str(sockets[device])]
        yield ProcessSpec(f"the engine{where[device]}", command, {**environment, **_on(device)}, True)
    for device in devices:
        for number in range(1, processes + 1):
            yield ProcessSpec(
                f"front {number}{where[device]}",
                [*front, str(sockets[device]), str(processes)],
                {
                    **environment,
                    "NAMESHOT_READY_FILE": str(folder / f"{sockets[device].name}-front-{number}-ready"),
                    # This prevents any library in a front from creating a context on the engine's device.
                    "CUDA_VISIBLE_DEVICES": "",
                },
            )


def _on(device: str) -> Mapping[str, str]:
    return {"NAMESHOT_DEVICE": device} if device else {}


@contextmanager
def private_folder() -> Iterator[KeptFolder]:
    """Yield a new folder that only this user may enter, and delete it afterwards.

    Raises:
        SettingsError: no folder for sockets can be created, or the operating system lacks anonymous shared memory.
    """
    if not hasattr(os, "memfd_create"):
        raise SettingsError("--processes needs Linux's anonymous shared memory; leave the option out.")
    try:
        folder = Path(tempfile.mkdtemp(prefix="nameshot-"))
    except OSError as error:
        raise SettingsError(
            f"--processes needs a folder for sockets, and none can be created ({error.strerror}); set TMPDIR."
        ) from None
    try:
        if len(os.fsencode(folder / "engine-999")) > _MAX_PATH_BYTES:
            raise SettingsError(f"TMPDIR {tempfile.gettempdir()!r} is too long for a socket in it; set a shorter one.")
        yield KeptFolder(folder, PRIVATE)
    finally:
        # The last engine may have removed the folder already.
        shutil.rmtree(folder, ignore_errors=True)
