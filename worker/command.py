"""The `nameshot` command's only way into the worker: for ``worker``, ``doctor``, ``compare`` and ``verify``.

The command imports this module by name, so that it also runs without the worker's packages. The functions import heavy
modules only when they need them, because torch takes seconds to load.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from producer.errors import NameshotError
from producer.findings import Finding
from producer.settings import BUNDLED, read_settings
from worker.settings import WorkerSettings

#: The tool nvidia-smi returns within a second, but hangs if the driver is broken.
_SMI_TIMEOUT_S: Final = 10.0


def launch(*, gpus: str | None, processes: int | None) -> int:
    """Run this machine's workers until a signal stops them, and return the exit status (`worker.runtime.launcher`)."""
    from worker.runtime.launcher import launch as run

    return run(gpus=gpus, processes=processes)


def read() -> WorkerSettings:
    """Return the settings from the environment; check also those of downloads and of the shared cache's server.

    Raises:
        SettingsError: a variable's value cannot be used.
    """
    from worker.downloads import fetch_policy
    from worker.service import shared_cache_server

    settings = read_settings(WorkerSettings)
    fetch_policy(settings)
    if settings.shared_cache_url:
        shared_cache_server(settings)
    return settings


def check_model() -> Iterator[Finding]:
    """Yield a finding about the checkpoint that a worker on this machine would load."""
    from worker.engine.device import checkpoint

    try:
        settings = read_settings(WorkerSettings)
    except NameshotError:
        return  # another finding reports the settings' error
    name, revision = settings.model, settings.revision
    folder = Path(checkpoint(name)).expanduser()
    if folder.is_dir() or name == BUNDLED:
        if (folder / "config.json").is_file():
            yield Finding("model", "ok", f"{name}, a folder on this machine")
        else:
            yield Finding("model", "broken", f"the folder {folder} holds no config.json", "set NAMESHOT_MODEL")
        return
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    except HFValidationError:
        yield Finding("model", "broken", f"{name!r} is neither a folder nor a Hub id", "correct NAMESHOT_MODEL")
        return
    where = (
        "in this machine's cache"
        if cached
        else "no folder here and not in this machine's cache; the worker downloads it at its start"
    )
    yield Finding("model", "ok", f"{name}, {where}")


def check_device(*, deep: bool) -> Iterator[Finding]:
    """Yield a finding about the device that a worker on this machine would use.

    This loads torch only if `deep` is true, a GPU seems to be present or NAMESHOT_DEVICE names one. If NAMESHOT_DEVICE
    is ``cpu`` although a GPU is present, the answer is known without torch.
    """
    from worker.model.nvidia import sign_of_nvidia

    wanted = os.environ.get("NAMESHOT_DEVICE", "auto")
    sign = sign_of_nvidia()
    if wanted == "cpu" and sign:
        yield Finding("device", "ok", f"{_shown(sign)}; not used, because NAMESHOT_DEVICE is cpu")
    elif deep or sign or wanted.startswith("cuda"):
        yield _torch_device(wanted, sign)
    else:
        yield Finding("device", "ok", "no NVIDIA GPU here: the CPU is used")


def _torch_device(wanted: str, sign: str | None) -> Finding:
    """Return a finding with the device that a worker would choose, or why it could not use the configured one."""
    from worker.model.devices import pick_device
    from worker.model.interface import ModelError

    try:
        chosen = pick_device(wanted)
    except ModelError as error:
        return Finding("device", "broken", f"{error}", _cuda_build_advice())
    gpus = f"{_shown(sign)}; " if sign else ""
    return Finding("device", "ok", f"{gpus}a worker here runs on {chosen} (NAMESHOT_DEVICE is {wanted})")


def _cuda_build_advice() -> str:
    torch = version("torch")
    return f"this torch ({torch}) is a build for the CPU: install torch's CUDA build" if "+cpu" in torch else ""


def _shown(sign: str) -> str:
    """Return the GPUs' names as nvidia-smi reports them, or ``sign``, the evidence of a GPU, if it reports none."""
    return ", ".join(_driver_gpus()) or sign


def _driver_gpus() -> list[str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        answer = subprocess.run(  # noqa: S603 - no argument comes from a user
            [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SMI_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.stdout.splitlines() if line.strip()]


def unusable(files: Sequence[Path]) -> Any:
    """Return the files that are no pictures, each with the reason (`worker.trial.trials.unusable`)."""
    from worker.trial.trials import unusable as found

    return found(files, max_pixels=read().max_pixels)


def compare(models: Sequence[str], files: Sequence[Path], labels: Sequence[str], templates: Sequence[str]) -> Any:
    """Return the rankings of each file by each checkpoint (`worker.trial.trials.rankings`), loaded in turn."""
    from worker.trial.trials import Choice, rankings

    settings = read()
    found = []
    for model in models:
        revision = settings.revision if model == settings.model else None
        choice = Choice(model, revision, settings.device, settings.max_pixels)
        found.append(rankings(choice, settings.dtype, files, labels, templates))
    return found


def verify(files: Sequence[Path], labels: Sequence[str], template: str, dtypes: Sequence[str]) -> Any:
    """Yield a `worker.trial.trials.Verdict` per dtype: how the scores compare with those of Transformers' pipeline."""
    from worker.trial.trials import Choice, verdicts

    settings = read()
    choice = Choice(settings.model, settings.revision, settings.device, settings.max_pixels)
    return verdicts(choice, files, labels, template, dtypes)
