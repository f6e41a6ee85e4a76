"""Tiny tokenizers and models with random weights, for tests and the quickstart. No download, no GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM as CausalLM
from transformers import AutoModelForSequenceClassification as Classifier
from transformers import (
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)

Kind = Literal["llama", "gpt2", "qwen2", "roberta"]

SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
ROLES = ("system", "user", "assistant", "tool")
PIECE = r" ?[\p{L}\p{N}']+| ?[^\s\p{L}\p{N}']|\s"
"""A word or a punctuation mark with the space before it, so that decoding is plain concatenation."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer(
    texts: Iterable[str], vocab_size: int = 512, *, kind: Literal["word", "bpe"] = "word", chat: bool = True
) -> PreTrainedTokenizerFast:
    """A fast tokenizer learned from ``texts``, with ``<pad>``, ``<unk>``, ``<s>``, ``</s>``; adds one BOS.

    Args:
        texts: what the vocabulary is taken from; the most frequent pieces win, ties in alphabetical order.
        vocab_size: of the whole vocabulary, special tokens included; smaller if the texts have fewer pieces.
        kind: word: a token is a word with the space before it, unknown ones are ``<unk>``; bpe: byte level.
        chat: add role tokens and a chat template, where ``</s>`` ends every turn.
    """
    roles = tuple(f"<|{role}|>" for role in ROLES) if chat else ()
    specials = list(SPECIALS + roles)
    core = _words(texts, vocab_size, specials) if kind == "word" else _byte_pairs(texts, vocab_size, specials)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", specials.index("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=list(roles),
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _words(texts: Iterable[str], vocab_size: int, specials: list[str]) -> Tokenizer:
    split = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    counts = Counter(piece for text in texts for piece, _ in split.pre_tokenize_str(text))
    # Ties in alphabetical order: the vocabulary, and so every id, is a function of the texts alone.
    best = sorted(counts, key=lambda piece: (-counts[piece], piece))[: max(0, vocab_size - len(specials))]
    core = Tokenizer(models.WordLevel({p: i for i, p in enumerate(specials + best)}, unk_token="<unk>"))
    core.pre_tokenizer, core.decoder = split, decoders.Fuse()
    core.add_special_tokens(specials)
    return core


def _byte_pairs(texts: Iterable[str], vocab_size: int, specials: list[str]) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        # All 256 bytes, also those that the texts do not contain: no text is ever unknown.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return core


def tiny_lm(
    kind: Literal["llama", "gpt2", "qwen2"],
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden: int = 128,
    layers: int = 4,
    seed: int = 0,
    scale: float = 0.02,
) -> PreTrainedModel:
    """A causal language model with random weights; 0.9M parameters with the defaults and 400 words.

    Args:
        kind: the architecture.
        tokenizer: gives the vocabulary size and the special tokens.
        hidden: width; a multiple of 4.
        layers: depth.
        seed: of the weights; the global random state is left as it was.
        scale: standard deviation of the weights. Larger weights make sharper distributions (useful in tests).
    """
    config = tiny_config(kind, tokenizer, hidden=hidden, layers=layers, scale=scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = CausalLM.from_config(config)
    model.generation_config.pad_token_id = config.pad_token_id
    model.generation_config.eos_token_id = config.eos_token_id
    return model.eval()


def tiny_classifier(
    kind: Kind,
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden: int = 32,
    layers: int = 2,
    seed: int = 0,
    scale: float = 0.02,
    labels: int = 1,
) -> PreTrainedModel:
    """A sequence classifier (with one label: a reward model) with random weights; see `tiny_lm`."""
    config = tiny_config(kind, tokenizer, hidden=hidden, layers=layers, scale=scale)
    config.num_labels = labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = Classifier.from_config(config)
    return model.eval()


def tiny_config(
    kind: Kind,
    tokenizer: PreTrainedTokenizerFast,
    *,
    hidden: int,
    layers: int,
    scale: float = 0.02,
    positions: int = 512,
) -> PreTrainedConfig:
    """The configuration of a tiny model of one of four architectures, with 4 heads and tied embeddings."""
    shared: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": scale,
        "tie_word_embeddings": True,
    }
    if kind == "gpt2":
        return GPT2Config(n_embd=hidden, n_layer=layers, n_head=4, n_positions=positions, **shared)
    shared |= {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 4}
    if kind == "roberta":
        return RobertaConfig(
            intermediate_size=4 * hidden,
            # RoBERTa counts positions from the pad id + 1 on, so that many rows of the table are never used.
            max_position_embeddings=positions + int(tokenizer.pad_token_id) + 1,
            type_vocab_size=1,
            **shared,
        )
    shared |= {
        "intermediate_size": 8 * hidden // 3,
        "max_position_embeddings": positions,
        "num_key_value_heads": 2,  # fewer than heads, so that tests run grouped-query attention
    }
    return LlamaConfig(**shared) if kind == "llama" else Qwen2Config(**shared)
