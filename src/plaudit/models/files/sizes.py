"""Published shapes of language models, by size: what a plan needs of a model that is not on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import LlamaConfig, Qwen2Config

from plaudit.models.tiny import tiny_tokenizer

_LLAMA3, _SMOL, _QWEN = {"vocab_size": 128256}, {"vocab_size": 49152}, {"vocab_size": 152064}
_TIED = {"tie_word_embeddings": True}
SHAPES: dict[str, tuple[str, tuple[int, int, int, int, int], dict[str, Any]]] = {
    "135M": ("SmolLM2-135M", (576, 1536, 30, 9, 3), _SMOL | _TIED),
    "360M": ("SmolLM2-360M", (960, 2560, 32, 15, 5), _SMOL | _TIED),
    "0.5B": ("Qwen2.5-0.5B", (896, 4864, 24, 14, 2), {"vocab_size": 151936} | _TIED),
    "1B": ("Llama-3.2-1B", (2048, 8192, 16, 32, 8), _LLAMA3 | _TIED),
    "1.5B": ("Qwen2.5-1.5B", (1536, 8960, 28, 12, 2), {"vocab_size": 151936} | _TIED),
    "1.7B": ("SmolLM2-1.7B", (2048, 8192, 24, 32, 32), _SMOL | _TIED),
    "3B": ("Llama-3.2-3B", (3072, 8192, 28, 24, 8), _LLAMA3 | _TIED),
    "7B": ("Qwen2.5-7B", (3584, 18944, 28, 28, 4), _QWEN),
    "8B": ("Llama-3.1-8B", (4096, 14336, 32, 32, 8), _LLAMA3),
    "14B": ("Qwen2.5-14B", (5120, 13824, 48, 40, 8), _QWEN),
    "32B": ("Qwen2.5-32B", (5120, 27648, 64, 40, 8), _QWEN),
    "70B": ("Llama-3.1-70B", (8192, 28672, 80, 64, 8), _LLAMA3),
    "405B": ("Llama-3.1-405B", (16384, 53248, 126, 128, 8), _LLAMA3),
}
"""Size -> whose it is; width, width of the MLP, layers, heads, heads of keys and values; further settings. From the
config.json that was published with each."""


def size_named(name: str) -> str:
    """The size that is meant, as `SHAPES` spells it; empty if a name is none.

    >>> size_named("8b"), size_named("some/model")
    ('8B', '')
    """
    return next((size for size in SHAPES if size.lower() == name.lower()), "")


def write_stand_in(size: str, folder: Path, *, scores: bool = False) -> str:
    """The settings of a model of a size, and a tokenizer with as many tokens as it has rows: no weights.

    Args:
        size: a key of `SHAPES`.
        folder: where they are written, below a folder of the model's name.
        scores: of a reward model of that size.

    Returns:
        The directory, from which an outline can be made.
    """
    name, (width, mlp, layers, heads, kv_heads), more = SHAPES[size]
    make = Qwen2Config if name.startswith("Qwen") else LlamaConfig
    config = make(
        hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, max_position_embeddings=131072,
        **({"tie_word_embeddings": False} | more),
    )  # fmt: skip
    place = folder / (f"{name}-reward" if scores else name)
    if scores:
        kind = "Qwen2" if make is Qwen2Config else "Llama"
        config.architectures, config.num_labels = [f"{kind}ForSequenceClassification"], 1
    config.save_pretrained(place)
    rows = int(config.vocab_size)
    # As many tokens as rows: ids without a token get no logits, and logits are a large part of what is needed.
    tiny_tokenizer([" ".join(f"w{i}" for i in range(rows))], rows, chat=False).save_pretrained(place)
    return str(place)
