"""Measures what no configuration states: how long a prompt the text tower reads, and whether padding changes a vector.

In some text towers, position numbers start after the padding token's index, so the first rows of the table of position
embeddings are never used; other towers have no such table. A tower may also ignore the attention mask, or be padded on
the left. So prompts run through the tower while it is still on the CPU, where a position outside the table raises an
error. On a GPU, such a position would make every later call of the process fail.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch

from worker.model.families import Family, Network
from worker.model.interface import Float32, ModelLoadError
from worker.model.prompts import Prompts, Tokens

logger = logging.getLogger(__name__)

#: No prompt is longer than this, even if the tower's configuration states a higher limit or none. In most languages the
#: longest permitted label in its template has fewer tokens.
LONGEST: Final = 1024
#: The lengths, in tokens, of a prompt and of a longer one beside which it is padded.
_SHORT, _LONG = 4, 16
#: Rounding changes a unit vector by less than this. Shifted positions, or padding that the tower does not
#: ignore, change it by much more.
_TOLERANCE: Final = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}

_Embed = Callable[[Tokens], Float32]


def measured_prompts(
    model: str, tokenizer: Any, network: Network, family: Family, config: Any, dtype: torch.dtype
) -> Prompts:
    """Return `Prompts` with the measured limits of the text tower, which must still be on the CPU.

    Args:
        model: the checkpoint's name in errors.
        config: the configuration of the whole checkpoint.
        dtype: the dtype of the forward pass.

    Raises:
        ModelLoadError: the vector of a label would depend on the other labels of its job.
        ValueError: the configuration states a length below 1.
        Exception: the tokenizer failed, or the tower failed at every length, in which case this is its first error.
    """
    text_config = getattr(config, family.text_config)
    stated = getattr(text_config, "max_position_embeddings", None)
    most = min(LONGEST if stated is None else int(stated), family.pad_to or LONGEST)
    if most < 1:
        raise ValueError(f"max_position_embeddings is {stated}; it must be at least 1")

    def prompts(longest: int, pad_to: int | None) -> Prompts:
        return Prompts(tokenizer, max_tokens=longest, pad_to=pad_to, vocabulary=text_config.vocab_size)

    def embed(tokens: Tokens) -> Float32:
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(ids) for name, ids in tokens.items()}
            vectors = family.text_vectors(network, inputs).float()
            unit: Float32 = (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()
        return unit

    if unknown := sorted(token for token, row in tokenizer.get_vocab().items() if row >= text_config.vocab_size):
        logger.warning(
            "the tokenizer of %s has %d tokens without an embedding in the model (first %r): labels with such a token "
            "fail; a tokenizer with added tokens needs a model whose embeddings were resized to it",
            model,
            len(unknown),
            unknown[0],
        )
    longest = _longest(embed, prompts(most, None), most)
    measured = prompts(longest, None if family.pad_to is None else longest)
    _refuse_dependence_on_padding(model, embed, measured, dtype)
    return measured


def _longest(embed: _Embed, prompts: Prompts, most: int) -> int:
    """Return how many tokens, special ones included, the tower reads; at most ``most``."""
    first: Exception | None = None
    # The tower looks up position embeddings before its first layer, so a prompt that is too long fails at once.
    for length in range(most, 0, -1):
        tokens = prompts.sample([length])
        try:
            embed(tokens)
        except (IndexError, RuntimeError, ValueError) as failure:
            first = first or failure
        else:
            return length
    raise first or AssertionError


def _refuse_dependence_on_padding(model: str, embed: _Embed, prompts: Prompts, dtype: torch.dtype) -> None:
    short, long = min(_SHORT, prompts.max_tokens), min(_LONG, prompts.max_tokens)
    alone, beside = embed(prompts.sample([short]))[0], embed(prompts.sample([short, long]))[0]
    # A vector that is not finite passes this comparison; the first pass on the device refuses it.
    if np.linalg.norm(alone - beside) > _TOLERANCE[dtype]:
        raise ModelLoadError(
            f"model {model!r} computes a different vector for a label when a longer label is in the batch, so scores "
            "would depend on the other labels of a job: have its tokenizer pad on the right and return an attention "
            "mask, or choose another model"
        )
