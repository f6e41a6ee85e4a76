"""The reward model: one number for a prompt with its response."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plaudit.errors import ModelError
from plaudit.experience import Batch, Outputs
from plaudit.models.load import load_classifier
from plaudit.models.saving import merged, write
from plaudit.models.source import resolve
from plaudit.models.trunk import (
    bare,
    body,
    enable_checkpointing,
    hidden_states,
    is_encoder,
    packs,
    silence_dropout,
    to_the_left,
)

TrainedOn = Literal["comparisons", "labels"]
"""comparisons: scores responses to a prompt. labels: classifies whole texts, the score is the log-odds of label 1."""

PROBE_FILE = "probe.json"
TOLERANCE = 1e-4


class RewardModel(nn.Module):
    """A transformers sequence classifier with one output, read at the right place.

    A decoder is read at the last real token, by the attention mask; an encoder at its first token ([CLS]).

    Args:
        model: ``...ForSequenceClassification`` with one label, plain or wrapped by `add_lora`.
        mean, std: of the raw scores of reference responses; `normalise` uses them.
        gradient_checkpointing: recompute activations in the backward pass.
        packing: compute no padding, and shared prompts once, where the architecture allows it (decoders only).

    Raises:
        ModelError: the model has more than one output.
    """

    def __init__(
        self, model: nn.Module, *, mean: float = 0.0, std: float = 1.0, gradient_checkpointing: bool = False,
        packing: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        labels = bare(model).config.num_labels
        if labels != 1:
            raise ModelError(
                f"a reward model has one output, this classifier has {labels}",
                cure="use it as a classifier reward (log-odds of a label), or train a reward model from it",
            )
        silence_dropout(model)
        if gradient_checkpointing:
            enable_checkpointing(model)
        self.model, self.mean, self.std = model, mean, std
        self.trained_on: TrainedOn = getattr(bare(model).config, "plaudit_trained_on", "comparisons")
        self.is_encoder = is_encoder(model)
        self.packing = packing and not self.is_encoder and packs(body(model))

    @classmethod
    def start(
        cls,
        source: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int = 0,
        options: dict[str, Any] | None = None,
    ) -> Self:
        """A reward model to train: from a causal LM or an encoder (fresh head), or from a reward model.

        Args:
            source: hub name, directory or GGUF file.
            tokenizer: the one it is trained with, from `load_tokenizer`.
            seed: of the fresh head.
            options: further arguments of ``from_pretrained``, such as `quantization_options`.
        """
        model, fresh = load_classifier(source, labels=1, tokenizer=tokenizer, **(options or {}))
        if fresh:
            init_head(model, seed)
        mean, std = _moments(model)
        return cls(model, mean=mean, std=std)

    @classmethod
    def load(cls, path: str | Path, tokenizer: PreTrainedTokenizerBase | None = None) -> Self:
        """A trained reward model. Its stored probe texts must score as they did when it was saved.

        Raises:
            ModelError: not a reward model, or its scores have changed by more than 1e-4.
        """
        model, fresh = load_classifier(path, labels=1, tokenizer=tokenizer)
        if fresh:
            raise ModelError(
                f"{path} has no scalar head; it is not a reward model", cure="train one with `plaudit reward`"
            )
        mean, std = _moments(model)
        loaded = cls(model, mean=mean, std=std)
        probe = Path(resolve(path).name) / PROBE_FILE
        if probe.is_file():
            loaded._check(probe)
        return loaded

    def forward(self, batch: Batch) -> Outputs:
        """``scores [B]``: raw, fp32."""
        return Outputs(scores=self._scores(batch.tokens, batch.attention_mask))

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode: there is no dropout to switch on."""
        return super().train(False)

    def normalise(self, scores: Tensor) -> Tensor:
        """``(scores - mean) / std``: mean 0 and standard deviation 1 on the reference responses."""
        return (scores - self.mean) / self.std

    @torch.no_grad()
    def score_rows(self, rows: Sequence[Sequence[int]], *, tokens_per_batch: int = 16384) -> list[float]:
        """Raw scores of token rows, in their order; batched by length."""
        device, pad = next(self.parameters()).device, bare(self.model).config.pad_token_id
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        scores = [0.0] * len(rows)
        while order:
            width = len(rows[order[-1]])
            chosen = [order.pop() for _ in range(min(len(order), max(1, tokens_per_batch // width)))]
            tokens = torch.full((len(chosen), width), pad)
            mask = torch.zeros(len(chosen), width, dtype=torch.bool)
            for b, i in enumerate(chosen):
                tokens[b, : len(rows[i])], mask[b, : len(rows[i])] = torch.tensor(rows[i]), True
            for i, score in zip(
                chosen, self._scores(tokens.to(device), mask.to(device)).tolist(), strict=True
            ):
                scores[i] = score
        return scores

    def save(
        self, path: str | Path, tokenizer: PreTrainedTokenizerBase, probe: Sequence[Sequence[int]] = ()
    ) -> None:
        """Write model (LoRA merged), tokenizer, normalisation and probe.

        ``AutoModelForSequenceClassification.from_pretrained(path)`` loads it and gives the same raw scores.

        Args:
            path: directory, made if needed.
            tokenizer: with a pad token of its own: plain transformers finds the last token by it.
            probe: token rows whose scores are stored and checked at every load.
        """
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
            raise ModelError(
                f"pad and end token are the same ({tokenizer.pad_token!r}): the last token cannot be found",
                cure="load the tokenizer with plaudit.models.load.load_tokenizer, which gives it a pad token",
            )
        plain = merged(self.model)
        config: Any = plain.config
        config.pad_token_id, config.problem_type = tokenizer.pad_token_id, "regression"
        config.plaudit_reward_mean, config.plaudit_reward_std = self.mean, self.std
        config.plaudit_trained_on = self.trained_on
        write(plain, path, tokenizer)
        rows = [list(map(int, row)) for row in probe]
        scores = type(self)(plain).score_rows(rows)
        text = json.dumps({"format": 1, "tokens": rows, "scores": scores})
        (Path(path) / PROBE_FILE).write_text(text + "\n", encoding="utf-8")

    def _scores(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.is_encoder:
            return self._encoder_scores(tokens, mask)
        hidden = hidden_states(body(self.model), tokens, mask, packing=self.packing)
        last = tokens.shape[1] - 1 - mask.flip(-1).int().argmax(-1)
        head = bare(self.model).score
        with torch.autocast(tokens.device.type, enabled=False):
            bias = None if head.bias is None else head.bias.float()
            state = hidden[torch.arange(len(tokens), device=tokens.device), last].float()
            return nn.functional.linear(state, head.weight.float(), bias).squeeze(-1)

    def _encoder_scores(self, tokens: Tensor, mask: Tensor) -> Tensor:
        inner = bare(self.model)
        tokens, mask = to_the_left(tokens.masked_fill(~mask, inner.config.pad_token_id), mask)
        head: Any = getattr(inner, "classifier", None)
        if not hasattr(head, "out_proj"):  # BERT and others pool inside their body
            return inner(input_ids=tokens, attention_mask=mask.long()).logits.float().squeeze(-1)
        hidden = inner.base_model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        with torch.autocast(tokens.device.type, enabled=False):
            return head(hidden.float()).squeeze(-1)

    def _check(self, probe: Path) -> None:
        stored = json.loads(probe.read_text(encoding="utf-8"))
        for index, (now, then) in enumerate(
            zip(self.score_rows(stored["tokens"]), stored["scores"], strict=True)
        ):
            if not abs(now - then) <= TOLERANCE * max(1.0, abs(then)):
                raise ModelError(
                    f"probe text {index} scores {now:.6f}, but scored {then:.6f} when the model was saved",
                    where=str(probe),
                    cure="the files are damaged or do not belong together; copy the directory again",
                )


def init_head(model: PreTrainedModel, seed: int) -> None:
    """Draw the last layer of a fresh head with deviation 1/sqrt(D+1) and bias 0 (arXiv:1909.08593)."""
    head: Any = getattr(model, "score", None) or model.classifier
    layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
    if not layers:
        raise ModelError(
            f"{model.config.model_type} has a head of an unknown kind", cure="use another architecture"
        )
    generator = torch.Generator().manual_seed(seed)
    weight = layers[-1].weight.data
    fresh = torch.randn(weight.shape, generator=generator) / (weight.shape[1] + 1) ** 0.5
    weight.copy_(fresh)
    if layers[-1].bias is not None:
        layers[-1].bias.data.zero_()


def _moments(model: PreTrainedModel) -> tuple[float, float]:
    config = model.config
    return float(getattr(config, "plaudit_reward_mean", 0.0)), float(
        getattr(config, "plaudit_reward_std", 1.0)
    )
