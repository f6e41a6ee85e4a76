"""A tokenizer as GGUF holds it: pieces, their kinds, merges, and the name of how llama.cpp splits a text.

GGUF has no general tokenizer: llama.cpp has a few of its own, and a file names one of them. What has none is refused.
The keys are those of the GGUF specification (in the repository ggml-org/ggml).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from plaudit.errors import ModelError

NORMAL, UNKNOWN, CONTROL, ADDED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens, as llama.cpp numbers them."""

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {
    ("ByteLevel",): "gpt-2",
    ("Digits", "ByteLevel"): "smollm",
    (f"Split {_LLAMA3}", "ByteLevel"): "llama-bpe",
    (f"Split {_LLAMA3.replace('{1,3}', '')}", "ByteLevel"): "qwen2",
}
"""How a byte-level tokenizer splits a text before merging -> llama.cpp's name of the same split."""
INSTEAD = "export to merged (safetensors), which holds every tokenizer"


@dataclass(frozen=True)
class Vocabulary:
    """What is written of a tokenizer. ``pieces``, ``kinds`` and ``scores`` have one entry for each embedding row."""

    model: str
    """llama.cpp's tokenizer: gpt2 (byte-level merges) or llama (SentencePiece with bytes for what is unknown)."""
    split: str
    """Its name of the split before merging."""
    pieces: list[str]
    kinds: list[int]
    merges: list[str]
    scores: list[float]
    """Of llama, whose merges go by them: the earlier a merge was learned, the higher; empty for gpt2."""
    adds_bos: bool
    adds_prefix_space: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, rows: int) -> Vocabulary:
        """What GGUF holds of a tokenizer whose model has ``rows`` embedding rows.

        Raises:
            ModelError: GGUF cannot hold it; says which kind it is.
        """
        core = getattr(tokenizer, "backend_tokenizer", None)
        if core is None:
            raise _refused(f"a tokenizer written in Python ({type(tokenizer).__name__})")
        whole: dict[str, Any] = json.loads(core.to_str())
        kind = whole["model"]["type"]
        if kind != "BPE":
            words = {"WordLevel": "word-level", "WordPiece": "WordPiece", "Unigram": "Unigram"}
            raise _refused(f"a {words.get(kind, kind)} tokenizer")
        merges = [m if isinstance(m, str) else " ".join(m) for m in whole["model"]["merges"]]
        pieces, kinds = _pieces(tokenizer, rows, byte_pieces=bool(whole["model"].get("byte_fallback")))
        first = tokenizer("a")["input_ids"][:1]
        adds_bos = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
        if whole["model"].get("byte_fallback"):
            rank = {merge.replace(" ", "", 1): -float(i) for i, merge in enumerate(merges)}
            scores = [rank.get(piece, -float(len(merges))) for piece in pieces]
            spaced = core.encode("a", add_special_tokens=False).tokens[:1] == ["▁a"]
            return cls("llama", "default", pieces, kinds, [], scores, adds_bos, spaced)
        return cls("gpt2", _split(whole.get("pre_tokenizer")), pieces, kinds, merges, [], adds_bos, False)


def _pieces(
    tokenizer: PreTrainedTokenizerBase, rows: int, *, byte_pieces: bool
) -> tuple[list[str], list[int]]:
    names = {index: piece for piece, index in tokenizer.get_vocab().items()}
    added: dict[int, Any] = dict(tokenizer.added_tokens_decoder)
    special = set(tokenizer.all_special_ids)
    pieces, kinds = [], []
    for index in range(rows):
        piece = names.get(index)
        # Rows beyond the vocabulary are there for the hardware's sake; llama.cpp asks for a name of each.
        pieces.append(f"[PAD{index}]" if piece is None else piece)
        if piece is None:
            kinds.append(UNUSED)
        elif index == tokenizer.unk_token_id and byte_pieces:
            kinds.append(UNKNOWN)
        elif index in special or (index in added and added[index].special):
            kinds.append(CONTROL)
        elif index in added:
            kinds.append(ADDED)
        else:
            kinds.append(BYTE if byte_pieces and len(piece) == 6 and piece.startswith("<0x") else NORMAL)
    return pieces, kinds


def _split(section: dict[str, Any] | None) -> str:
    parts = (section or {}).get("pretokenizers") or ([section] if section else [])
    steps = []
    for part in parts:
        pattern = part.get("pattern") or {}
        steps.append(f"{part['type']} {pattern.get('Regex')}" if part["type"] == "Split" else part["type"])
    name = _SPLITS.get(tuple(steps))
    if name is None:
        shown = ", ".join(step[:60] for step in steps) or "none"
        raise _refused(f"a tokenizer whose split before merging llama.cpp has no name for ({shown})")
    return name


def _refused(what: str) -> ModelError:
    return ModelError(f"GGUF cannot hold {what}", where="--to gguf:...", cure=INSTEAD)
