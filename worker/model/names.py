"""Distinguishes folders' names from Hub ids, without importing PyTorch or Transformers."""

from __future__ import annotations

from pathlib import Path

from worker.model.interface import ModelLoadError


def named_folder(model: str, revision: str | None) -> Path | None:
    """Return the folder that ``model`` names, or None if ``model`` is a Hub id; raises `ModelLoadError`."""
    if not model.strip():
        raise ModelLoadError("no model is named: name the folder of a saved checkpoint, or a Hub id")
    try:
        folder = Path(model).expanduser()
        is_folder, exists = folder.is_dir(), folder.exists()
        if is_folder:
            [file.exists() for file in folder.iterdir()]  # raises if this user may list the folder, but not enter it
    except (OSError, RuntimeError) as failure:  # pathlib raises RuntimeError for an unknown user's home
        reason = getattr(failure, "strerror", None) or failure
        raise ModelLoadError(f"folder {model!r} cannot be read ({reason}): check its path and permissions") from None
    if is_folder and revision is not None:
        raise ModelLoadError(
            f"revision {revision!r} was requested, but {model!r} is a local folder, which has no revisions: leave the "
            "revision out, or name a Hub id"
        )
    if is_folder:
        return folder
    if exists:
        raise ModelLoadError(f"{model!r} is a file: name the folder of a saved checkpoint, or a Hub id")
    if model.startswith((".", "~", "/", "\\")) or model.count("/") > 1 or "\\" in model:
        raise ModelLoadError(
            f"there is no folder {model!r}: check the path, or name a Hub id such as openai/clip-vit-base-patch32"
        )
    return None
