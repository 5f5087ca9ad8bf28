"""Small tokenizers of the classes that the families use, trained on a few hundred words within a second."""

import io
from pathlib import Path
from typing import Any

_TEXT = """
this is a photo of the and in on with no bad good low resolution drawing painting close up cropped bright dark
picture sketch art rendering one small large many fox bear seagull owl cat dog horse sheep cow elephant zebra
giraffe tree house river mountain beach street car bus train airplane boat bicycle person child woman man red
green blue yellow black white brown sleeping running flying sitting eating apple banana pizza cake table chair
label number ein foto von einem fuchs une photo renard una foto de un zorro
"""
_WORDS = _TEXT.split()
CORPUS = [f"{first} {second} {third}." for first, second, third in zip(_WORDS, _WORDS[7:], _WORDS[19:], strict=False)]
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,!?-'()_/:éüñ狐狸猫狗照片一张的"


def clip(_folder: Path) -> Any:
    """Make a byte-level BPE whose end-of-text token has the highest number, as in CLIP."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[Any] = list(dict.fromkeys(merge for word in _WORDS for merge in _merges(word)))
    pieces = [*bytes_, *(f"{byte}</w>" for byte in bytes_), *("".join(merge) for merge in merges)]
    pieces = list(dict.fromkeys([*pieces, "<|startoftext|>", "<|endoftext|>"]))
    return CLIPTokenizer(vocab=_numbered(pieces), merges=merges, model_max_length=77)


def bert(_folder: Path) -> Any:
    """Make a WordPiece tokenizer with token types."""
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_WORDS]
    return BertTokenizer(vocab=_numbered(list(dict.fromkeys(pieces))), model_max_length=512)


def xlm_roberta(_folder: Path) -> Any:
    """Make a Unigram tokenizer; padding is 1 and end of text is 2."""
    from transformers import XLMRobertaTokenizer

    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = [(letter, -9.0) for letter in dict.fromkeys("▁" + _LETTERS)]
    words = [(f"▁{word}", -4.0) for word in dict.fromkeys(_WORDS) if len(word) > 1]
    return XLMRobertaTokenizer(vocab=[*special, *letters, *words, ("<mask>", 0.0)], model_max_length=512)


def siglip(folder: Path) -> Any:
    """Make a SentencePiece tokenizer in Python; its model file is written to the folder."""
    import sentencepiece
    from transformers import SiglipTokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=300,
        hard_vocab_limit=False,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    path = folder / "spiece.model"
    path.write_bytes(model.getvalue())
    return SiglipTokenizer(str(path))


def gemma(_folder: Path) -> Any:
    """Make a BPE over characters with byte fallback, like SigLIP 2's: an attention mask, but no start token."""
    from tokenizers import processors
    from transformers import Siglip2Tokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *_BYTES, "▁", *_LETTERS]
    tokenizer = Siglip2Tokenizer(vocab=_numbered(pieces), merges=[], padding_side="right", model_max_length=64)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    return tokenizer


def tips(_folder: Path) -> Any:
    """Make a BPE over characters with byte fallback, whose only special token is padding."""
    from transformers import Tipsv2Tokenizer

    return Tipsv2Tokenizer(vocab=_numbered(["<pad>", "<unk>", *_BYTES, "▁", *_LETTERS]), merges=[])


_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(pieces)}


def _merges(word: str) -> list[tuple[str, str]]:
    """Return merges that join a word's letters from left to right."""
    letters = [*word[:-1], f"{word[-1]}</w>"]
    return [("".join(letters[:end]), letters[end]) for end in range(1, len(letters))]
