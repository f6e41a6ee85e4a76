"""The reward model: one number for a prompt with its response, from one head or from one for each quality."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self, Unpack

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from plaudit.errors import ModelError
from plaudit.experience import Batch, Outputs
from plaudit.functional.logprobs import at_mask, predicting_states
from plaudit.models.classifier import (
    decoder_outputs,
    encoder_outputs,
    init_head,
    know_separator,
    name_attributes,
)
from plaudit.models.files.adapter import classifier_on, save_adapter
from plaudit.models.files.integrity import seal
from plaudit.models.files.load import load_classifier
from plaudit.models.files.outline import is_outline
from plaudit.models.files.saving import Saved, merged, write
from plaudit.models.files.source import resolve
from plaudit.models.forward.head import LMHead
from plaudit.models.forward.lower import LowerStates
from plaudit.models.forward.reading import ANY, OTHERS, Reading
from plaudit.models.forward.trunk import (
    ForwardOptions,
    bare,
    body,
    enable_checkpointing,
    hidden_states,
    is_encoder,
    packs,
    silence_dropout,
)
from plaudit.models.length import LengthRule

TrainedOn = Literal["comparisons", "ratings", "labels"]
"""comparisons, ratings: it scores a response to a prompt. labels: it classifies a whole text, and the score is the
log-odds of label 1."""

PROBE_FILE = "probe.json"
TOLERANCE = 1e-4
"""Difference of a probe score (relative above 1) at which a load is refused; other kernels and threads stay below."""


class RewardModel(nn.Module):
    """A transformers sequence classifier with one output (or one a quality), read at the right place.

    A decoder is read at the last real token, by the attention mask; an encoder at its first token ([CLS]).
    Several outputs are named and weighted in the config (`classifier.name_attributes`); the score is their weighted
    sum.

    Args:
        model: ``...ForSequenceClassification`` with one label (or one a quality), plain or wrapped by `add_lora`.
        mean, std: of the raw scores of reference responses; `normalise` uses them.
        gradient_checkpointing: recompute activations in the backward pass.
        packing: compute no padding, and shared prompts once, where the architecture allows it (decoders only).
        lower_states_gb: memory for the states of frozen lower layers, which are then computed once; 0: none.

    Raises:
        ModelError: the model has more outputs than named qualities.
    """

    head_weights: Tensor

    def __init__(
        self, model: nn.Module, *, mean: float = 0.0, std: float = 1.0, gradient_checkpointing: bool = False,
        packing: bool = True, lower_states_gb: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        config: Any = bare(model).config
        labels = config.num_labels
        self.attributes: tuple[str, ...] = tuple(getattr(config, "plaudit_attributes", ()))
        if labels != max(1, len(self.attributes)):
            raise ModelError(
                f"a reward model has one output, this classifier has {labels}",
                cure="use it as a classifier reward (log-odds of a label), or train a reward model from it",
            )
        silence_dropout(model)
        if gradient_checkpointing:
            enable_checkpointing(model)
        self.model, self.mean, self.std = model, mean, std
        self.trained_on: TrainedOn = getattr(config, "plaudit_trained_on", "comparisons")
        self.length_rule = LengthRule(**getattr(config, "plaudit_length", {}))
        self.probe: Sequence[Sequence[int]] = ()
        self.saved: Saved = "both"
        weights = torch.tensor(getattr(config, "plaudit_attribute_weights", [1.0]), dtype=torch.float32)
        self.register_buffer("head_weights", weights, persistent=False)
        self.lm_head: LMHead | None = None
        self.is_encoder = is_encoder(model)
        if not self.is_encoder and not isinstance(getattr(bare(model), "score", None), nn.Linear):
            raise ModelError(
                f"{config.model_type} has no linear score on its last state, so it cannot be a reward model",
                cure=OTHERS,
            )
        reading = Reading(ANY, 0) if self.is_encoder else Reading.of(body(model))
        self.together, self.notes = reading.together, tuple(n for n in (reading.note("reward model"),) if n)
        self.packing = packing and not self.is_encoder and self.together > 0 and packs(body(model))
        self.lower = LowerStates.of(body(model), lower_states_gb) if self.packing else None

    @classmethod
    def start(
        cls,
        source: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        *,
        seed: int = 0,
        options: dict[str, Any] | None = None,
        attributes: Sequence[str] = (),
        attribute_weights: Sequence[float] = (),
    ) -> Self:
        """A reward model to train: from a causal LM or an encoder (fresh head), or from a reward model.

        Args:
            source: hub name, directory or GGUF file.
            tokenizer: the one it is trained with, from `load_tokenizer`.
            seed: of the fresh head.
            options: further arguments of ``from_pretrained``, such as `quantization_options`.
            attributes: names of the qualities that get a head each; empty: one score.
            attribute_weights: of the heads in the score.
        """
        labels = max(1, len(attributes))
        model, fresh = load_classifier(source, labels=labels, tokenizer=tokenizer, **(options or {}))
        know_separator(model, tokenizer)
        name_attributes(model, attributes, attribute_weights)
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
        model, fresh = load_classifier(path, tokenizer=tokenizer)
        if fresh:
            raise ModelError(
                f"{path} has no scalar head; it is not a reward model", cure="train one with `plaudit reward`"
            )
        if tokenizer is not None:
            know_separator(model, tokenizer)
        return cls._as_saved(model, resolve(path).name)

    @classmethod
    def on_base(
        cls, path: str | Path, tokenizer: PreTrainedTokenizerBase, base: nn.Module, *, lower_states_gb: float = 0.0
    ) -> Self:  # fmt: skip
        """The model of `load` as its adapter and head on a ``base`` shared with others; see `models/files/adapter.py`.

        Raises:
            ModelError: damaged, or its scores on this base differ by more than 1e-4.
        """
        model = classifier_on(base, Path(path))
        know_separator(bare(model), tokenizer)
        return cls._as_saved(model, path, lower_states_gb=lower_states_gb)

    @classmethod
    def _as_saved(cls, model: nn.Module, path: str | Path, **options: Unpack[ForwardOptions]) -> Self:
        """A model with the moments it was saved with, whose probe texts score as they did then."""
        mean, std = _moments(bare(model))
        loaded = cls(model, mean=mean, std=std, **options)
        # A reward model that loads without an error may still be another function: another tokenizer, another adapter
        # base, a half-copied file. Training against it would waste a run, so a few known texts are scored first.
        probe = Path(path) / PROBE_FILE
        if probe.is_file() and not is_outline(model):
            loaded._check(probe)
        return loaded

    def forward(self, batch: Batch) -> Outputs:
        """``scores [B]``: raw, fp32; ``heads [B, H]`` where there are several qualities.

        While the model is trained with an LM head also ``logprobs [B, T]``, of the best responses only.
        """
        tokens, mask = batch.tokens, batch.attention_mask
        if self.is_encoder:
            heads = encoder_outputs(self.model, tokens, mask)
            return Outputs(scores=self._combined(heads), heads=heads if self.attributes else None)
        hidden = self._hidden(tokens, mask)
        heads = decoder_outputs(self.model, hidden, mask)
        logprobs = None
        # Only where gradients are wanted: scoring does not need it, and it costs a row of logits for each token.
        if self.lm_head is not None and torch.is_grad_enabled():
            wanted = batch.response_mask & batch.best_rows[:, None]
            logprobs = at_mask(self.lm_head(predicting_states(hidden, wanted), tokens[wanted])[0], wanted)
        layer: Any = bare(self.model).score
        return Outputs(
            scores=self._combined(heads),
            heads=heads if self.attributes else None,
            head_weights=layer.weight.float() if self.attributes and torch.is_grad_enabled() else None,
            logprobs=logprobs,
        )

    @property
    def on_adapters(self) -> bool:
        """Is it an adapter on a frozen base?"""
        return isinstance(self.model, PeftModel)

    def keep_language_model(self, head: LMHead, layer: nn.Module) -> None:
        """Predict tokens as well while training; see `plaudit.models.reward_extras.auxiliary_head`."""
        self.lm_head, self.lm_layer = head, layer

    def train(self, mode: bool = True) -> Self:
        """Does nothing: the module stays in eval mode, there is no dropout to switch on."""
        return super().train(False)

    def normalise(self, scores: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``(scores - mean) / std``: mean 0 and standard deviation 1 on the reference responses.

        Args:
            scores: ``[N]`` raw scores.
            lengths: ``[N]`` response tokens; needed where the model has a rule for length.
        """
        if self.length_rule.kind != "none":
            assert lengths is not None, "a rule for length needs lengths"
            scores = self.length_rule.apply(scores, lengths)
        return (scores - self.mean) / self.std

    def fit(self, rule: LengthRule, scores: Tensor, lengths: Tensor) -> None:
        """Take a rule for length, and the moments of reference responses: raw scores and lengths ``[N]``."""
        # Moments of the corrected scores: in the other order the correction would shift a mean that was made 0.
        corrected = rule.apply(scores.double(), lengths)
        self.length_rule = rule
        self.mean, self.std = float(corrected.mean()), float(corrected.std(correction=0)) or 1.0

    def value_head(self) -> tuple[Tensor, float]:
        """Weight ``[1, D]`` and bias of the linear map from states to normalised scores (decoders only).

        Where there is a rule for length, the map is that of a response of the typical length.
        """
        # Heads, their weights, the rule for length and the normalisation are all affine in the state, so they fold into
        # one layer, and a critic that starts from it predicts rewards in the scale that it will be trained on.
        score: Any = bare(self.model).score
        factor, offset = self.length_rule.at_typical_length()
        weights = self.head_weights.to(score.weight.device)
        bias = 0.0 if score.bias is None else float(weights @ score.bias.detach().float())
        weight = (weights @ score.weight.detach().float())[None] * (factor / self.std)
        return weight, (factor * bias + offset - self.mean) / self.std

    @torch.no_grad()
    def score_rows(self, rows: Sequence[Sequence[int]], *, tokens_per_batch: int = 16384) -> list[float]:
        """Raw scores of token rows, in the order of ``rows``; batched by length."""
        heads = self.score_heads(rows, tokens_per_batch=tokens_per_batch)
        return (
            []
            if not rows
            else [float(x) for x in self._combined(torch.tensor(heads).to(self.head_weights.device))]
        )

    @torch.no_grad()
    def score_heads(
        self, rows: Sequence[Sequence[int]], *, tokens_per_batch: int = 16384
    ) -> list[list[float]]:
        """Raw scores of each head for token rows, ``[N][H]`` in the order of ``rows``."""
        # Longest first: a batch is as wide as its first row, and memory is at its largest at once, so a batch that does
        # not fit fails in the first second and not at the end.
        device, pad = next(self.parameters()).device, bare(self.model).config.pad_token_id
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        scores: list[list[float]] = [[]] * len(rows)
        while order:
            width = len(rows[order[-1]])
            chosen = [order.pop() for _ in range(min(len(order), max(1, tokens_per_batch // width)))]
            tokens = torch.full((len(chosen), width), pad)
            mask = torch.zeros(len(chosen), width, dtype=torch.bool)
            for b, i in enumerate(chosen):
                tokens[b, : len(rows[i])], mask[b, : len(rows[i])] = torch.tensor(rows[i]), True
            heads = self._heads(tokens.to(device), mask.to(device)).tolist()
            for i, row in zip(chosen, heads, strict=True):
                scores[i] = row
        return scores

    def save(
        self, path: str | Path, tokenizer: PreTrainedTokenizerBase, probe: Sequence[Sequence[int]] = ()
    ) -> None:
        """Write model (LoRA merged, and its adapter beside it), tokenizer, normalisation and probe.

        ``AutoModelForSequenceClassification.from_pretrained(path)`` loads it and gives the same raw scores.

        Args:
            path: directory, made if needed.
            tokenizer: with a pad token of its own: plain transformers finds the last token by it.
            probe: token rows whose scores are stored and checked at every load; by default those in ``self.probe``.
        """
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
            raise ModelError(
                f"pad and end token are the same ({tokenizer.pad_token!r}): the last token cannot be found",
                cure="load the tokenizer with plaudit.models.files.load.load_tokenizer, which gives it a pad token",
            )
        plain = merged(self.model)
        config: Any = plain.config
        config.pad_token_id, config.problem_type = tokenizer.pad_token_id, "regression"
        config.plaudit_reward_mean, config.plaudit_reward_std = self.mean, self.std
        config.plaudit_trained_on = self.trained_on
        config.plaudit_length = asdict(self.length_rule)
        write(plain, path, tokenizer)
        # Without adapters, an earlier save's are taken away.
        save_adapter(self.model if self.saved == "both" else plain, Path(path))
        # Scored with the merged model, which is what a load gives; adapters beside their base round a little otherwise.
        rows = [list(map(int, row)) for row in probe or self.probe]
        scores = type(self)(plain).score_rows(rows)
        text = json.dumps({"format": 1, "tokens": rows, "scores": scores})
        (Path(path) / PROBE_FILE).write_text(text + "\n", encoding="utf-8")
        seal(Path(path))

    def _combined(self, heads: Tensor) -> Tensor:
        """``[B, H]`` -> ``[B]``."""
        return heads @ self.head_weights if self.attributes else heads.squeeze(-1)

    def _heads(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if self.is_encoder:
            return encoder_outputs(self.model, tokens, mask)
        return decoder_outputs(self.model, self._hidden(tokens, mask), mask)

    def _hidden(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return hidden_states(
            body(self.model), tokens, mask, packing=self.packing, lower=self.lower, together=self.together
        )

    def _check(self, probe: Path) -> None:
        stored = json.loads(probe.read_text(encoding="utf-8"))
        for index, (now, then) in enumerate(
            zip(self.score_rows(stored["tokens"]), stored["scores"], strict=True)
        ):
            # Not written as ``>``: a NaN compares false with everything and would pass.
            if not abs(now - then) <= TOLERANCE * max(1.0, abs(then)):
                raise ModelError(
                    f"probe text {index} scores {now:.6f}, but scored {then:.6f} when the model was saved",
                    where=str(probe),
                    cure="the files are damaged or do not belong together; copy the directory again",
                )


def _moments(model: PreTrainedModel) -> tuple[float, float]:
    config = model.config
    return float(getattr(config, "plaudit_reward_mean", 0.0)), float(
        getattr(config, "plaudit_reward_std", 1.0)
    )
