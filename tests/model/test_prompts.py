"""Tokens are counted exactly, and a prompt's vector does not depend on the prompts in the same batch."""

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.model import tokenizers_made_here
from tests.model.checkpoints import SMALL
from worker.model import Model
from worker.model.interface import ModelError
from worker.model.prompts import TOKENS_PER_PASS, Prompts

PROMPTS = ["x", "a photo of a fox.", "This is a photo of two cats sleeping by the large red house."]


@pytest.mark.parametrize("family", SMALL)
def test_a_prompt_has_the_same_vector_alone_and_in_a_batch(
    family: str, loaded: Callable[[str], Model], rounding: float
) -> None:
    model = loaded(family)
    together = model.embed_texts(PROMPTS)
    for prompt, vector in zip(PROMPTS, together, strict=True):
        assert model.embed_texts([prompt])[0] == pytest.approx(vector, rel=0, abs=rounding)
    assert np.linalg.norm(together, axis=-1) == pytest.approx(1, abs=1e-6)
    assert together.dtype == np.float32


@pytest.mark.parametrize("family", ["clip", "siglip", "blip"])
def test_vectors_are_in_the_order_of_their_prompts(
    family: str, loaded: Callable[[str], Model], rounding: float
) -> None:
    """The model sorts prompts by length and cuts them into several passes here."""
    model = loaded(family)
    prompts = [f"{PROMPTS[number % 3]} {number}" for number in range(700)]
    assert sum(model.count_tokens(prompts)) > TOKENS_PER_PASS
    vectors = model.embed_texts(prompts)
    assert np.abs(model.embed_texts(prompts[::-1])[::-1] - vectors).max() < rounding
    picked = [0, 1, 2, 350, 698, 699]
    assert np.abs(model.embed_texts([prompts[row] for row in picked]) - vectors[picked]).max() < rounding


@pytest.mark.parametrize("family", SMALL)
def test_token_counts_equal_those_of_the_tokenizer(
    family: str, loaded: Callable[[str], Model], checkpoint: Callable[[str], Path]
) -> None:
    tokenizer = importlib.import_module("transformers").AutoTokenizer.from_pretrained(checkpoint(family))
    prompts = [*PROMPTS, "fox " * 600]
    expected = [len(tokenizer(prompt, verbose=False)["input_ids"]) for prompt in prompts]
    assert loaded(family).count_tokens(prompts) == expected
    assert expected[-1] >= 600
    assert loaded(family).count_tokens([]) == []


LONGEST = {
    "clip": 77,
    "metaclip_2": 77,
    "siglip": 64,
    "siglip2": 64,
    "tipsv2": 64,
    "altclip": 100,
    "align": 512,
    "blip-2": 512,
}


@pytest.mark.parametrize("family", LONGEST)
def test_a_prompt_of_the_model_s_length_is_embedded_and_a_longer_one_is_refused(
    family: str, loaded: Callable[[str], Model]
) -> None:
    model = loaded(family)
    assert model.max_tokens == LONGEST[family]
    prompt = "fox"
    while model.count_tokens([prompt])[0] < model.max_tokens:
        prompt += "," if family != "siglip" else " x"
    assert model.count_tokens([prompt]) == [model.max_tokens]
    assert np.isfinite(model.embed_texts([prompt, "owl"])).all()
    longer = prompt + (", , " if family != "siglip" else " x")
    [length] = model.count_tokens([longer])
    with pytest.raises(ModelError, match=f"{length} tokens.*{model.max_tokens}"):
        model.embed_texts(["owl", longer])


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_many_threads_may_count_tokens_while_another_embeds(family: str, loaded: Callable[[str], Model]) -> None:
    model = loaded(family)
    prompts = [f"a photo of a fox number {number}" for number in range(100)]
    counts, vectors = model.count_tokens(prompts), model.embed_texts(prompts)
    with ThreadPoolExecutor(9) as threads:
        embedded = threads.submit(lambda: [model.embed_texts(prompts) for _ in range(4)])
        counted = [threads.submit(model.count_tokens, prompts) for _ in range(60)]
        assert all(future.result() == counts for future in counted)
        assert all(np.array_equal(again, vectors) for again in embedded.result())


def test_padding_and_truncation_in_a_tokenizer_file_are_ignored(tmp_path: Path) -> None:
    tokenizer = tokenizers_made_here.bert(tmp_path)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    tokenizer.backend_tokenizer.enable_truncation(4)
    prompts = Prompts(tokenizer, max_tokens=512, pad_to=None, vocabulary=len(tokenizer))
    assert prompts.count(["fox", "a red fox running on the beach"]) == [3, 9]
    [(_, tokens)] = prompts.passages(["fox", "a red fox running on the beach"])
    assert tokens["attention_mask"].sum(axis=1).tolist() == [3, 9]


def test_a_token_outside_the_model_s_vocabulary_is_refused_before_the_model_runs(tmp_path: Path) -> None:
    """On a GPU such a token would end the process."""
    tokenizer: Any = tokenizers_made_here.bert(tmp_path)
    fox = tokenizer.convert_tokens_to_ids("fox")
    prompts = Prompts(tokenizer, max_tokens=512, pad_to=None, vocabulary=fox)
    assert list(prompts.passages(["a photo"]))
    with pytest.raises(ModelError, match="vocabulary"):
        list(prompts.passages(["a photo", "a fox"]))


def test_a_prompt_without_any_token_is_refused(tmp_path: Path) -> None:
    tokenizer = tokenizers_made_here.tips(tmp_path)
    with pytest.raises(ModelError, match="no tokens"):
        list(Prompts(tokenizer, max_tokens=64, pad_to=None, vocabulary=len(tokenizer)).passages(["fox", ""]))
