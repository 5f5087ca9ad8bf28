"""Turns errors of Transformers and the Hub into one sentence for the operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import huggingface_hub
import transformers
from huggingface_hub import errors

from worker.model.interface import DeviceLostError, ModelLoadError


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
        yield
    finally:
        ours.set_verbosity(verbosity)
        hub.logging.set_verbosity(hub_verbosity)
        if bars:
            ours.enable_progress_bar()
        if hub_bars:
            hub.enable_progress_bars()


@contextmanager
def explained(model: str, revision: str | None, part: str) -> Iterator[None]:
    """Turn any failure except `DeviceLostError` into a `ModelLoadError` about this part of the checkpoint."""
    try:
        yield
    except (ModelLoadError, DeviceLostError):
        raise
    except Exception as failure:  # Transformers raises OSError, ValueError, KeyError, RuntimeError, ImportError, …
        raise ModelLoadError(_sentence(model, revision, part, failure)) from failure


def _sentence(model: str, revision: str | None, part: str, failure: Exception) -> str:
    causes = list(_causes(failure))
    for kind, sentence in (
        (errors.GatedRepoError, f"model {model!r} is gated: accept its terms on the Hub and set HF_TOKEN"),
        (errors.RevisionNotFoundError, f"model {model!r} has no revision {revision!r}: name a branch, tag or commit"),
        (errors.RepositoryNotFoundError, f"the Hub shows no model {model!r}: check the name, or set HF_TOKEN"),
        (errors.HFValidationError, f"{model!r} is neither a folder here nor a possible Hub id: check the name"),
        (
            errors.LocalEntryNotFoundError,
            f"model {model!r} is not in the local cache and the Hub cannot be reached: check the network, or name a "
            "folder",
        ),
        (
            errors.EntryNotFoundError,
            f"model {model!r} lacks a file on the Hub that Transformers needs for its {part}: choose another model",
        ),
    ):
        if any(isinstance(cause, kind) for cause in causes):
            return sentence
    missing = next((cause for cause in causes if isinstance(cause, ImportError)), None)
    if missing is not None:
        return f"the {part} of model {model!r} needs a package that is not installed: {_first_sentence(missing)}"
    return (
        f"the {part} of model {model!r} cannot be loaded, {type(failure).__name__}: {_first_sentence(failure)}; save "
        "the checkpoint again with Transformers, or choose another"
    )


def _causes(failure: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = failure
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _first_sentence(failure: BaseException) -> str:
    """Return an error's first sentence; in Transformers' messages, the next ones are advice for its own callers."""
    line = next((line.strip() for line in str(failure).splitlines() if line.strip()), "no details")
    return line.partition(". ")[0][:200].rstrip(".:")
