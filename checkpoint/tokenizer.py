"""A CLIP tokenizer with a small vocabulary: byte-level, so it has a token for every UTF-8 text."""

import json
from collections.abc import Sequence
from typing import Any, Final

# Every name of the concepts becomes one to three tokens; more would only add rows that training hardly visits.
VOCABULARY: Final = 2_500
START, END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(texts: Sequence[str], *, context: int) -> Any:
    """Learn byte-pair merges from `texts`, and put them into a `CLIPTokenizer`.

    The words are cut by CLIP's own normalizer and pre-tokenizer, taken from a tokenizer without merges. As in CLIP,
    the end of text has the highest number, and pads.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    cutter = CLIPTokenizer().backend_tokenizer
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = cutter.normalizer, cutter.pre_tokenizer
    trainer = trainers.BpeTrainer(
        # The alphabet counts towards the size once here and twice below: with and without the end of a word.
        vocab_size=VOCABULARY - len(alphabet) - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=alphabet,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    pieces = dict.fromkeys([*letters, *("".join(pair) for pair in merges), START, END])
    numbers = {piece: number for number, piece in enumerate(pieces)}
    # Its type asks for merges as text, and it takes pairs.
    make: Any = CLIPTokenizer
    return make(vocab=numbers, merges=merges, model_max_length=context)
