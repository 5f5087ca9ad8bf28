"""Tokenises prompts like the zero-shot pipeline, for many threads at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from worker.model.interface import ModelError

#: One pass of the text tower reads at most this many tokens, which bounds its memory and still fills a GPU.
TOKENS_PER_PASS: Final = 8192
#: Every usable tokenizer, whatever its language, has tokens for some of these English words.
PROBE: Final = "a photo of the dog"

#: The padded prompts of one pass: arrays, int64 (prompts, length), by the name of the network's input.
Tokens = Mapping[str, npt.NDArray[np.int64]]


class Prompts:
    """A thread-safe tokenizer with the limits of one model.

    Args:
        tokenizer: a tokenizer of Transformers' AutoTokenizer.
        max_tokens: the length of the longest prompt that the model reads, special tokens included.
        pad_to: the length of every padded prompt; None pads the prompts of a pass to the longest.
        vocabulary: the number of rows of the model's embedding table; on a GPU, a token beyond them would make every
            later call of the process fail.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int, pad_to: int | None, vocabulary: int) -> None:
        self.max_tokens = max_tokens
        self._tokenizer = tokenizer
        self._pad_to = pad_to
        self._vocabulary = vocabulary
        # Many threads may use a Rust tokenizer if its padding and truncation do not change. So both stay off, and
        # `pad` pads in Python. A Python tokenizer is not thread-safe at all.
        self._lock: AbstractContextManager[object] = nullcontext() if tokenizer.is_fast else Lock()
        tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True
        self._tokenize(["a"])  # turns off the padding and truncation that the checkpoint may have turned on

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Count each prompt's tokens, special ones included, without truncation."""
        return [len(row) for row in self._tokenize(prompts)["input_ids"]] if prompts else []

    def passages(self, prompts: Sequence[str]) -> Iterator[tuple[list[int], Tokens]]:
        """Yield all prompts, short ones first, in passages of at most `TOKENS_PER_PASS` tokens.

        Each passage is for one pass of the text tower. It consists of its prompts' indices in `prompts`, and of their
        padded tokens.

        Raises:
            ModelError: a prompt is too long or empty, or the tokenizer does not match the model.
        """
        tokenized = self._tokenize(prompts)
        lengths = [len(row) for row in tokenized["input_ids"]]
        if max(lengths) > self.max_tokens:
            raise ModelError(f"a prompt has {max(lengths)} tokens, but the model reads at most {self.max_tokens}")
        if min(lengths) == 0:
            raise ModelError("a prompt has no tokens at all")
        self._refuse_unknown_tokens(tokenized)
        order = sorted(range(len(prompts)), key=lengths.__getitem__)
        for rows in _groups(order, [self._pad_to or length for length in lengths]):
            yield rows, self._pad({name: [column[row] for row in rows] for name, column in tokenized.items()})

    def sample(self, lengths: Sequence[int]) -> Tokens:
        """Return prompts of exactly these numbers of tokens, padded together.

        Raises:
            ModelError: the tokenizer does not match the model.
        """
        tokenized = self._tokenize([f"{PROBE} " * max(lengths)])
        self._refuse_unknown_tokens(tokenized)
        # The last token may be the end token, at whose position some towers read the vector.
        return self._pad(
            {name: [[*row[: length - 1], row[-1]] for length in lengths] for name, [row] in tokenized.items()}
        )

    def _refuse_unknown_tokens(self, tokenized: Mapping[str, list[list[int]]]) -> None:
        if max(max(row) for row in tokenized["input_ids"]) >= self._vocabulary:
            raise ModelError("the tokenizer produces a token that is not in the model's vocabulary")

    def _tokenize(self, prompts: Sequence[str]) -> Mapping[str, list[list[int]]]:
        with self._lock:
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
    """Cut ``order``, sorted by length, into groups of at most `TOKENS_PER_PASS` tokens, padding included."""
    group: list[int] = []
    for row in order:
        if group and (len(group) + 1) * lengths[row] > TOKENS_PER_PASS:
            yield group
            group = []
        group.append(row)
    if group:
        yield group
