"""Lists the processes of a machine: a worker for each device, or an engine process for each and several fronts."""

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

#: Linux limits a Unix socket's path to 108 bytes, including the final zero (unix(7)).
_MAX_PATH_BYTES: Final = 107


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process to keep running.

    Attributes:
        name: its name in messages.
        command: its command line.
        environment: its whole environment.
        gives_signs_of_life: whether it sends heartbeats, on a descriptor that the launcher appends to the command.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    gives_signs_of_life: bool = False

    @property
    def ready_file(self) -> str | None:
        """The path of the file that exists while it takes jobs; None if it has none."""
        return self.environment.get("NAMESHOT_READY_FILE")


def one_for_each(devices: Sequence[str], command: Sequence[str]) -> Iterator[ProcessSpec]:
    """Yield a plain worker for each device; arguments as for `engine_and_fronts`."""
    for device in devices:
        name = f"the worker on {device}" if len(devices) > 1 else "the worker"
        yield ProcessSpec(name, command, {**os.environ, **_on(device)})


def all_take_jobs(processes: Iterable[ProcessSpec]) -> bool:
    """Return whether each process that has a ready file takes jobs."""
    return all(Path(process.ready_file).exists() for process in processes if process.ready_file)


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
        processes: fronts per device.
        folder: the sockets' folder, which other users may not enter.
        front: a front's command; its engine's socket and the number of fronts are appended.
        engine: an engine's command; its socket is appended, and by the launcher a descriptor for heartbeats.
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
                    # No library of a front can create a context on the device, which belongs to the engine.
                    "CUDA_VISIBLE_DEVICES": "",
                },
            )


def _on(device: str) -> Mapping[str, str]:
    return {"NAMESHOT_DEVICE": device} if device else {}


@contextmanager
def private_folder() -> Iterator[Path]:
    """Create a folder that only this user may enter, for the time of the context.

    Raises:
        SettingsError: the folder cannot hold sockets, or this system lacks anonymous shared memory.
    """
    if not hasattr(os, "memfd_create"):
        raise SettingsError("--processes needs Linux's anonymous shared memory; leave it out.")
    try:
        folder = Path(tempfile.mkdtemp(prefix="nameshot-"))
    except OSError as error:
        raise SettingsError(
            f"--processes needs a folder for sockets, and none can be created ({error.strerror}); name one by TMPDIR."
        ) from None
    try:
        if len(os.fsencode(folder / "engine-999")) > _MAX_PATH_BYTES:
            raise SettingsError(f"TMPDIR {tempfile.gettempdir()!r} is too long for a socket in it; name a shorter one.")
        yield folder
    finally:
        # The last engine may have removed it.
        shutil.rmtree(folder, ignore_errors=True)
