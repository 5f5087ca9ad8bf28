"""Prompts to token numbers, the way the zero-shot pipeline does it, from many threads at once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.model.interface import ModelError

# What one pass of the text tower reads at most: bounds its memory for a thousand long labels, and fills a GPU.
TOKENS_PER_PASS: Final = 8192

Tokens = Mapping[str, npt.NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Passage:
    """Prompts of about the same length, padded: one pass of the text tower.

    `rows` says where in the caller's list each prompt stood; `tokens` are int64 (rows, length) by input name.
    """

    rows: Sequence[int]
    tokens: Tokens


class Prompts:
    """A tokenizer of Transformers, made safe for threads, with the limits of one model.

    Args:
        tokenizer: as AutoTokenizer returns it.
        max_tokens: the longest prompt, special tokens included.
        pad_to: length of every padded prompt; None pads each passage to its longest prompt.
        vocabulary: rows of the model's embedding table; a number beyond it would take a GPU down with it.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int, pad_to: int | None, vocabulary: int) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._pad_to = pad_to
        self._vocabulary = vocabulary
        # A Rust tokenizer may be read by many threads as long as its padding and truncation stay as they are; so both
        # stay off, and `pad` does the padding in Python. A Python tokenizer promises nothing.
        self._reading: AbstractContextManager[object] = nullcontext() if tokenizer.is_fast else Lock()
        tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
        self._tokenize(["a"])  # switches off whatever padding and truncation the checkpoint's own file turned on

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, special ones included, nothing cut off."""
        return [len(row) for row in self._tokenize(prompts)["input_ids"]] if prompts else []

    def passages(self, prompts: Sequence[str]) -> Iterator[Passage]:
        """All prompts, the short ones first, in passages of at most `TOKENS_PER_PASS` tokens.

        Raises:
            ModelError: a prompt is too long, or its tokenizer and the model do not fit together.
        """
        tokenized = self._tokenize(prompts)
        lengths = [len(row) for row in tokenized["input_ids"]]
        if max(lengths) > self.max_tokens:
            raise ModelError(f"a prompt has {max(lengths)} tokens, and the model reads {self.max_tokens}")
        if min(lengths) == 0:
            raise ModelError("a prompt has no tokens at all")
        if max(max(row) for row in tokenized["input_ids"]) >= self._vocabulary:
            raise ModelError("the tokenizer gives a token that the model's vocabulary does not have")
        order = sorted(range(len(prompts)), key=lengths.__getitem__)
        for rows in _groups(order, [self._pad_to or length for length in lengths]):
            yield Passage(rows, self._pad({name: [column[row] for row in rows] for name, column in tokenized.items()}))

    def _tokenize(self, prompts: Sequence[str]) -> Mapping[str, list[list[int]]]:
        with self._reading:
            tokenized: Mapping[str, list[list[int]]] = self._tokenizer(
                list(prompts), padding=False, truncation=False, verbose=False
            )
        return tokenized

    def _pad(self, tokenized: Mapping[str, list[list[int]]]) -> Tokens:
        padded = self._tokenizer.pad(
            tokenized, padding="max_length" if self._pad_to else True, max_length=self._pad_to, return_tensors="np"
        )
        return {name: np.asarray(values, np.int64) for name, values in padded.items()}


def _groups(order: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Cut `order`, which runs from short to long, so that no group has more than `TOKENS_PER_PASS` tokens padded."""
    group: list[int] = []
    for row in order:
        if group and (len(group) + 1) * lengths[row] > TOKENS_PER_PASS:
            yield group
            group = []
        group.append(row)
    if group:
        yield group
