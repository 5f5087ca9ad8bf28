"""Refuses a configuration whose network or images would be so large that building them would take all memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch

from worker.model.damage import PROCESSOR, damage_of, files_of
from worker.model.interface import ModelLoadError
from worker.model.sources import CONFIG, Source

#: The largest published models have about a hundred layers.
_MOST_LAYERS: Final = 1_000
#: The most weights per byte of the files: quantised weights are stored in at least four bits.
_WEIGHTS_PER_BYTE: Final = 2
#: The longest side, in pixels, to which an image processor may scale or crop an image; a square image of this side
#: takes up to a gigabyte.
_LONGEST_SIDE: Final = 16_384
#: The settings of an image processor that hold sides in pixels.
_SIDES: Final = ("size", "crop_size", "pad_size")


def refuse_implausible_network(source: Source, architecture: Any, config: Any) -> None:
    """Refuse a configuration that describes a far larger network than the checkpoint has weights for.

    Without this check, Transformers would fill all the missing weights with random numbers before it reported them.

    Raises:
        ModelLoadError: the network is too large.
        Exception: Transformers cannot build a network from this configuration.
    """
    for name, value in _numbers(config.to_dict()):
        if name.rpartition(".")[2] in ("num_hidden_layers", "num_layers", "depth") and value > _MOST_LAYERS:
            raise ModelLoadError(_implausible(source, CONFIG, name, value, f"at most {_MOST_LAYERS}"))
    with torch.device("meta"):
        wanted = sum(weights.numel() for weights in architecture(config).parameters())
    held = sum(file.stat().st_size for file in files_of(source, "weights") if file.is_file())
    # The weights of a Hub checkpoint may not be downloaded yet.
    if source.commit is None and held and wanted > _WEIGHTS_PER_BYTE * held:
        raise ModelLoadError(
            damage_of(source, "weights")
            or f"the {CONFIG} of model {source.model!r} describes a network of {wanted:,} weights, but the files "
            f"of its weights hold {held:,} bytes: copy or save the checkpoint again"
        )


def refuse_implausible_images(source: Source, processor: Any) -> None:
    """Refuse an image processor whose images would have no pixels, or too many."""
    for setting in _SIDES:
        sides = getattr(processor, setting, None)
        for name, value in _numbers({setting: sides if isinstance(sides, int) else dict(sides or {})}):
            # Several checkpoints state a maximum of a million or more, but a maximum never enlarges an image.
            if "longest" in name or "max" in name:
                continue
            if not 1 <= value <= _LONGEST_SIDE:
                raise ModelLoadError(_implausible(source, PROCESSOR, name, value, f"from 1 to {_LONGEST_SIDE}"))


def _implausible(source: Source, file: str, name: str, value: float, expected: str) -> str:
    return f"the {file} of model {source.model!r} says that {name} is {value}; it must be {expected}"


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", value
