"""Read pictures whose labels are known: a folder per label, or the rows of a CSV file."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from producer.cli.bulk.rows import ENDINGS, IMAGE_NAMES, delimiter_of, looks_like_image, peeked
from producer.errors import UsageError

#: Usual names of the column with the label, in search order.
LABEL_NAMES: Final = ("label", "class", "category", "target")


@dataclass(frozen=True, slots=True)
class Example:
    """One picture, as a URL or a path, and its label."""

    image: str
    label: str


def read_examples(source: Path) -> list[Example]:
    """Return the pictures of a folder, in the order of their paths, or of a CSV file, in the order of its rows.

    Raises:
        UsageError: the source cannot be read, or holds no picture with a label.
    """
    try:
        examples = list(_of_folder(source) if source.is_dir() else _of_table(source))
    except OSError as error:
        raise UsageError(f"{str(source)!r} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error):
        raise UsageError(f"{str(source)!r} is neither a folder nor a CSV file in UTF-8.") from None
    if not examples:
        wanted = "a folder for each label, with pictures in it" if source.is_dir() else "rows of image and label"
        raise UsageError(f"{str(source)!r} holds no pictures with labels; it needs {wanted}.")
    return examples


def pictures_in(folder: Path) -> list[Path]:
    """Return the files in a folder, at any depth, whose names have no ending or that of a picture that is decoded."""
    return [path for path in _files_in(folder) if _is_named_like_picture(path)]


def strays_in(source: Path) -> list[Path]:
    """Return the pictures directly in a folder, which have no label; for a CSV file, return an empty list."""
    if not source.is_dir():
        return []
    return sorted(path for path in source.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())


def others_in(source: Path) -> list[Path]:
    """Return the files in the labels' folders that are left out because their endings are not those of pictures."""
    if not source.is_dir():
        return []
    return [path for folder in _labelled(source) for path in _files_in(folder) if not _is_named_like_picture(path)]


def _labelled(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _is_named_like_picture(path: Path) -> bool:
    return not path.suffix or path.suffix.lower() in ENDINGS


def _of_folder(folder: Path) -> Iterator[Example]:
    for labelled in _labelled(folder):
        label = labelled.name.replace("_", " ")
        for path in pictures_in(labelled):
            yield Example(str(path), label)


def _of_table(file: Path) -> Iterator[Example]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        first_line, lines = peeked(text)
        rows = (
            row
            for row in csv.reader(lines, delimiter=delimiter_of(first_line, is_row=True))
            if any(map(str.strip, row))
        )
        first = next(rows, None)
        if first is None:
            return
        image, label, is_header = _columns(file, first)
        for row in itertools.chain([] if is_header else [first], rows):
            if len(row) <= max(image, label) or not row[image].strip() or not row[label].strip():
                raise UsageError(f"{str(file)!r} has a row without an image or a label: {','.join(row)[:100]!r}.")
            yield Example(_location(file, row[image].strip()), row[label].strip())


def _columns(file: Path, first: list[str]) -> tuple[int, int, bool]:
    """Return the index of the image's column, of the label's, and whether this row is a header.

    Raises:
        UsageError: the row is a header that lacks one of the two.
    """
    names = [cell.strip().lower() for cell in first]
    image = next((names.index(name) for name in IMAGE_NAMES if name in names), None)
    label = next((names.index(name) for name in LABEL_NAMES if name in names), None)
    if image is not None and label is not None:
        return image, label, True
    if looks_like_image(first[0].strip(), file.parent):
        return 0, 1, False
    raise UsageError(
        f"{str(file)!r} needs a column of images ({choice(IMAGE_NAMES)}) and one of labels ({choice(LABEL_NAMES)}); "
        f"its columns are {', '.join(cell.strip() for cell in first)[:300]}."
    )


def choice(names: Sequence[str]) -> str:
    """Return names as text: a, b or c."""
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _location(file: Path, image: str) -> str:
    """Return a URL or an absolute path unchanged; prefix a relative path with the table's folder."""
    return image if "://" in image or Path(image).is_absolute() else str(file.parent / image)
