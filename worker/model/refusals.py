"""Turns errors of Transformers and the Hub into one sentence for the operator."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import huggingface_hub
import transformers
from huggingface_hub import constants, errors

from worker.model.damage import damage_of, files_of
from worker.model.interface import DeviceLostError, ModelLoadError
from worker.model.sources import Source

#: What to do if the system does not let the Hub's client write to its cache.
_DISK: Final[Mapping[int, str]] = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there",
    errno.EACCES: "let the worker's user write there",
    errno.EPERM: "let the worker's user write there",
    errno.EROFS: "mount it writable",
}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and warnings of Transformers and the Hub; failures raise exceptions anyway."""
    ours: Any = transformers.utils.logging  # these functions have no types
    hub: Any = huggingface_hub.utils
    verbosity, hub_verbosity = ours.get_verbosity(), hub.logging.get_verbosity()
    bars, hub_bars = ours.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
    ours.set_verbosity(ours.CRITICAL)
    hub.logging.set_verbosity(hub.logging.CRITICAL)
    ours.disable_progress_bar()
    hub.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ours.set_verbosity(verbosity)
        hub.logging.set_verbosity(hub_verbosity)
        if bars:
            ours.enable_progress_bar()
        if hub_bars:
            hub.enable_progress_bars()


@contextmanager
def explained(part: str, model: str, *, revision: str | None = None, source: Source | None = None) -> Iterator[None]:
    """Turn any failure except `DeviceLostError` into a `ModelLoadError` about this part of the checkpoint.

    Args:
        source: the checkpoint's files, once they are found.
    """
    try:
        yield
    except (ModelLoadError, DeviceLostError):
        raise
    except Exception as failure:  # Transformers raises OSError, ValueError, KeyError, RuntimeError, ImportError, …
        damage = None if source is None else damage_of(source, part)
        online = _about_hub(model, revision, failure) if source is None or source.commit else None
        raise ModelLoadError(damage or online or _sentence(part, model, source, failure)) from failure


def _about_hub(model: str, revision: str | None, failure: Exception) -> str | None:
    causes = list(_causes(failure))
    for kind, sentence in (
        (errors.GatedRepoError, f"model {model!r} is gated: accept its terms on the Hub and set HF_TOKEN"),
        (errors.RevisionNotFoundError, f"model {model!r} has no revision {revision!r}: name a branch, tag or commit"),
        (errors.DisabledRepoError, f"the Hub has disabled model {model!r}: choose another model"),
        (
            errors.RepositoryNotFoundError,
            f"the Hub shows no model {model!r}, and there is no such folder here: check the name, or set HF_TOKEN",
        ),
        (errors.HFValidationError, f"{model!r} is neither a folder here nor a possible Hub id: check the name"),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return sentence
    answer = next((cause for cause in causes if isinstance(cause, errors.HfHubHTTPError)), None)
    if answer is not None and not isinstance(answer, errors.EntryNotFoundError):
        return _about_answer(model, answer.response.status_code)
    disk = next((cause for cause in causes if isinstance(cause, OSError) and cause.errno in _DISK), None)
    if disk is not None:
        return (
            f"model {model!r} cannot be stored in the cache {constants.HF_HUB_CACHE!r} ({disk.strerror}): "
            f"{_DISK[disk.errno or 0]}, or set HF_HOME to another folder"
        )
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes) and constants.is_offline_mode():
        return (
            f"model {model!r} is no folder here and not in the cache {constants.HF_HUB_CACHE!r}, and HF_HUB_OFFLINE "
            "forbids its download: check the path, or unset HF_HUB_OFFLINE"
        )
    if any(isinstance(cause, errors.LocalEntryNotFoundError) for cause in causes):
        return (
            f"model {model!r} is no folder here and not in the local cache, and the Hub cannot be reached at "
            f"{constants.ENDPOINT}: check the path and the network"
        )
    return None


def _sentence(part: str, model: str, source: Source | None, failure: Exception) -> str:
    causes = list(_causes(failure))
    if any(isinstance(cause, RuntimeError) and "home directory" in str(cause) for cause in causes):  # from pathlib
        return f"model {model!r} cannot be found, because this user has no home directory: set HOME, or HF_HOME"
    missing = next((cause for cause in causes if isinstance(cause, ImportError)), None)
    if missing is not None:
        return f"the {part} of model {model!r} needs a package that is not installed: {_first_sentence(missing)}"
    if any(isinstance(cause, errors.EntryNotFoundError) for cause in causes):
        return f"model {model!r} lacks a file on the Hub that Transformers needs for its {part}: choose another model"
    files = " and ".join(file.name for file in files_of(source, part)) if source else ""
    return (
        f"the {part} of model {model!r} cannot be used{files and f' from {files}'}, {type(failure).__name__}: "
        f"{_first_sentence(failure)}; save the checkpoint again with Transformers, or choose another"
    )


def _about_answer(model: str, status: int) -> str:
    if status in (401, 403):
        return f"the Hub at {constants.ENDPOINT} refuses access to model {model!r} ({status}): check HF_TOKEN"
    return (
        f"model {model!r} is no folder here and not in the local cache, and the Hub at {constants.ENDPOINT} "
        f"responds with status {status}: check the path, or try again later"
    )


def _causes(failure: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = failure
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _first_sentence(failure: BaseException) -> str:
    """Return an error's first sentence; in Transformers' messages, the next ones are advice for its own callers."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()] or ["no details"]
    # The first line of a message may only announce what the next one says.
    line = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return line.partition(". ")[0][:200].rstrip(".:")
