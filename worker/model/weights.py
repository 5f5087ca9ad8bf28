"""Checks what Transformers reports about a checkpoint's weights: which are missing, and which it did not use."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from worker.model.interface import ModelLoadError

logger = logging.getLogger(__name__)


def check_weights(model: str, architecture: str, report: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that lacks weights, and warn of weights that nothing uses.

    Args:
        report: Transformers' loading information. Missing weights would be random numbers.

    Raises:
        ModelLoadError: weights are missing or have another shape, or belong to an adapter.
    """
    unused = sorted(report["unexpected_keys"])
    adapters = [key for key in unused if ".lora_" in key]
    if adapters:
        raise ModelLoadError(
            f"model {model!r} has weights of an adapter beside its own (first {adapters[0]!r}, {len(adapters)} in all),"
            " which a worker does not apply: merge them with PEFT's merge_and_unload(), and save the result"
        )
    if report["missing_keys"]:
        absent = sorted(report["missing_keys"])
        raise ModelLoadError(
            f"model {model!r} lacks {len(absent)} of the weights of a {architecture} (first {absent[0]!r}), so "
            "its scores would be random: choose a checkpoint trained for zero-shot classification"
        )
    if report["mismatched_keys"]:
        key, stored, stated = min(report["mismatched_keys"])
        raise ModelLoadError(
            f"{len(report['mismatched_keys'])} weights of model {model!r} do not have the shapes that its config.json "
            f"states (first {key!r}: {tuple(stored)} instead of {tuple(stated)}): copy both from one checkpoint"
        )
    if unused:
        logger.warning(
            "%s has %d weights that a %s does not use (first %r): its scores are computed without them",
            model,
            len(unused),
            architecture,
            unused[0],
        )
