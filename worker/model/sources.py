"""Finds a checkpoint's files: a folder, or a snapshot that the Hub's client downloads or has in its cache."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
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
        location: the same with ``~`` expanded, for Transformers.
        commit: the commit of a Hub checkpoint; None if the checkpoint is a folder.
        folder: the folder with the files; for a Hub checkpoint, its snapshot in the cache.
        local_only: whether only the local cache is read, because the Hub does not respond.
    """

    model: str
    location: str
    commit: str | None
    folder: Path
    local_only: bool = False

    @property
    def name(self) -> str:
        """The model's name in results, which never contains a whole path."""
        return self.folder.resolve().name if self.commit is None else self.model

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of ``from_pretrained`` that choose these files."""
        return {
            "pretrained_model_name_or_path": self.location,
            "revision": self.commit,
            "local_files_only": self.local_only,
        }


def find_source(model: str, revision: str | None) -> Source:
    """Find a checkpoint; for one of the Hub, download its configuration if it is not in the cache.

    All files of a Hub checkpoint are loaded from one commit, even if the branch moves meanwhile.

    Raises:
        ModelLoadError: the name or the revision cannot be that of a checkpoint, or the checkpoint holds an adapter.
        Exception: any error of the Hub's client.
    """
    folder = named_folder(model, revision)
    if folder is not None:
        _refuse_adapter(model, next((file for name in _ADAPTERS for file in folder.glob(name)), None))
        if not (folder / CONFIG).is_file() and not (folder / CONFIG).is_symlink():
            raise ModelLoadError(f"folder {model!r} holds no {CONFIG}: name the folder of a saved checkpoint")
        return Source(model, str(folder), None, folder)
    try:
        config, local_only = _config(model, revision)
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        _refuse_adapter(model, find_adapter_config_file(model, revision=revision))
        raise
    # The cache stores the files of each commit in a folder named after the commit.
    source = Source(model, model, config.parent.name, config.parent, local_only)
    _refuse_adapter(model, find_adapter_config_file(model, revision=source.commit, local_files_only=local_only))
    return source


def _config(model: str, revision: str | None) -> tuple[Path, bool]:
    """Return a Hub checkpoint's configuration, and whether the cached one is used because the Hub does not respond.

    If Transformers did not know that, it would request optional files for a minute before it used the cache.
    """
    if not _hub_answers(model, revision):
        with suppress(EntryNotFoundError):
            return Path(hf_hub_download(model, CONFIG, revision=revision, local_files_only=True)), True
    # If the Hub does not respond and nothing is cached, the Hub's client tries several times before it raises an error.
    return Path(hf_hub_download(model, CONFIG, revision=revision)), False


def _hub_answers(model: str, revision: str | None) -> bool:
    try:
        get_hf_file_metadata(hf_hub_url(model, CONFIG, revision=revision))
    except HfHubHTTPError as refusal:
        return refusal.response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    except Exception:  # the HTTP library has a class for each way to fail
        return False
    return True


def _refuse_adapter(model: str, file: Path | str | None) -> None:
    """Refuse an adapter, because Transformers ignores it without an error if PEFT is not installed."""
    if file is not None:
        raise ModelLoadError(
            f"model {model!r} holds an adapter ({Path(file).name}), which a worker does not apply: merge it into its "
            "base with PEFT's merge_and_unload(), and name the folder to which save_pretrained() writes the result; or "
            "remove the adapter's files"
        )
