"""Measures what no configuration states: how long a prompt the text tower reads, and whether padding changes a vector.

In some text towers, positions start after the padding token's index, so that the first rows of their table are never
used; others have no table at all. A tower may also ignore the attention mask, or be padded on the left. So prompts run
through the tower while it is still on the CPU, where a position outside the table raises an error. On a GPU it would
make every later call of the process fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch

from worker.model.families import Family, Network
from worker.model.interface import Float32, ModelLoadError
from worker.model.prompts import Prompts, Tokens

#: No label in its template has more tokens, in most languages; a tower may read fewer, or state no limit at all.
LONGEST: Final = 1024
#: The lengths, in tokens, of a prompt and of a longer one beside which it is padded.
_SHORT, _LONG = 4, 16
#: Rounding changes a unit vector by less than this. Shifted positions or visible padding change it by much more.
_TOLERANCE: Final = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}

_Embed = Callable[[Tokens], Float32]


def measured_prompts(
    model: str, tokenizer: Any, network: Network, family: Family, config: Any, dtype: torch.dtype
) -> Prompts:
    """Return the tokenizer with the limits of the text tower, which is on the CPU.

    Args:
        model: the checkpoint's name in errors.
        config: the configuration of the whole checkpoint.
        dtype: the dtype of the forward pass.

    Raises:
        ModelLoadError: the vector of a label would depend on the other labels of its job.
        Exception: what the tokenizer or the tower raises for any prompt.
    """
    text_config = getattr(config, family.text_config)
    stated = getattr(text_config, "max_position_embeddings", None)
    most = min(LONGEST if stated is None else int(stated), family.pad_to or LONGEST)
    if most < 1:
        raise ValueError(f"max_position_embeddings is {stated}, which is to be at least 1")

    def prompts(longest: int, pad_to: int | None) -> Prompts:
        return Prompts(tokenizer, max_tokens=longest, pad_to=pad_to, vocabulary=text_config.vocab_size)

    def embed(tokens: Tokens) -> Float32:
        with torch.inference_mode():
            inputs = {name: torch.from_numpy(ids) for name, ids in tokens.items()}
            vectors = family.text_vectors(network, inputs).float()
            unit: Float32 = (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()
        return unit

    longest = _longest(embed, prompts(most, None), most)
    measured = prompts(longest, None if family.pad_to is None else longest)
    _refuse_dependence_on_padding(model, embed, measured, dtype)
    return measured


def _longest(embed: _Embed, prompts: Prompts, most: int) -> int:
    """Return how many tokens, special ones included, the tower reads; at most ``most``."""
    first: Exception | None = None
    # Positions come before the first layer, so a length that is too long fails at once.
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
    # Numbers that are not finite are for the first pass on the device to refuse.
    if np.linalg.norm(alone - beside) > _TOLERANCE[dtype]:
        raise ModelLoadError(
            f"model {model!r} gives a label another vector when it is padded beside a longer one, so its scores would "
            "depend on the other labels of a job: have its tokenizer pad on the right and return an attention mask, or "
            "choose another model"
        )
