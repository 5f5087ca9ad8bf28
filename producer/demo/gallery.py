"""The bundled pictures, their candidate labels, and the expected label of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).with_name("pictures")


@dataclass(frozen=True, slots=True)
class Picture:
    """One bundled picture; ``expect`` is the candidate label that should rank first."""

    file: str
    candidate_labels: list[str]
    expect: str

    @property
    def path(self) -> Path:
        """The path of the image file."""
        return FOLDER / self.file


def pictures() -> list[Picture]:
    """Return all bundled pictures, in the demo's order."""
    entries = json.loads((FOLDER / "pictures.json").read_text(encoding="utf-8"))
    return [Picture(entry["file"], entry["candidate_labels"], entry["expect"]) for entry in entries]


def files_by_name() -> dict[str, Path]:
    """Return the path of each picture by its file name, for a picture server."""
    return {picture.file: picture.path for picture in pictures()}
