"""Finds a checkpoint's files: a folder, or a snapshot that the Hub's client downloads or has in its cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers.utils.peft_utils import find_adapter_config_file

from worker.model.interface import ModelLoadError
from worker.model.names import named_folder

#: The file that every checkpoint of Transformers has.
CONFIG: Final = "config.json"
#: Files that hold an adapter of PEFT or Diffusers.
_ADAPTERS: Final = ("adapter_config.json", "adapter_model.*", "pytorch_lora_weights.*")


@dataclass(frozen=True, slots=True)
class Source:
    """The files of one checkpoint.

    Attributes:
        model: the folder or Hub id, as the operator named it.
        location: the same for Transformers.
        commit: the commit of a Hub checkpoint; None for a folder.
        folder: the folder with the files; for a Hub checkpoint, its snapshot in the cache.
    """

    model: str
    location: str
    commit: str | None
    folder: Path

    @property
    def name(self) -> str:
        """The model's name in results, which never contains a whole path."""
        return self.folder.resolve().name if self.commit is None else self.model


def find_source(model: str, revision: str | None) -> Source:
    """Find a checkpoint; for one of the Hub, download its configuration if it is not in the cache.

    All files of a Hub checkpoint are loaded from one commit, even if the branch moves meanwhile.

    Raises:
        ModelLoadError: the name or the revision cannot be that of a checkpoint, or it is an adapter.
        Exception: what the Hub's client raises.
    """
    folder = named_folder(model, revision)
    if folder is not None:
        _refuse_adapter(model, next((file for name in _ADAPTERS for file in folder.glob(name)), None))
        if not (folder / CONFIG).is_file() and not (folder / CONFIG).is_symlink():
            raise ModelLoadError(f"folder {model!r} holds no {CONFIG}: name the folder of a saved checkpoint")
        return Source(model, str(folder), None, folder)
    try:
        config = _download(model, CONFIG, revision)
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        _refuse_adapter(model, find_adapter_config_file(model, revision=revision))
        raise
    # The cache stores the files of each commit in a folder named after the commit.
    source = Source(model, model, config.parent.name, config.parent)
    _refuse_adapter(model, find_adapter_config_file(model, revision=source.commit))
    return source


def _download(model: str, file: str, revision: str | None) -> Path:
    """Return a file of the Hub, or the cached one if the Hub does not answer."""
    try:
        return Path(hf_hub_download(model, file, revision=revision))
    except (HfHubHTTPError, EntryNotFoundError, HFValidationError):
        raise
    except Exception as failure:  # a connection that breaks, or a proxy that fails, has classes of the HTTP library
        try:
            return Path(hf_hub_download(model, file, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            raise failure from None


def _refuse_adapter(model: str, file: Path | str | None) -> None:
    """Refuse an adapter, because Transformers ignores it without an error if PEFT is not installed."""
    if file is not None:
        raise ModelLoadError(
            f"model {model!r} holds an adapter ({Path(file).name}), which a worker does not apply: merge it into its "
            "base with PEFT's merge_and_unload(), and name the folder to which save_pretrained() writes the result; or "
            "remove the adapter's files"
        )
