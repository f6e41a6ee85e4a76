"""Policies, critics and reward models to train in this process, from the names in a config."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from plaudit.backends.local.backbone import Backbone
from plaudit.backends.local.rewards import same_tokenizer
from plaudit.config.sections import ComputeSection, LoraSection
from plaudit.data.chat import ChatFormat
from plaudit.errors import ConfigError, ModelError
from plaudit.jobs.reward_tables import ModelTable, RewardTable
from plaudit.models.critic import Critic
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.files.outline import Stored
from plaudit.models.files.sizes import size_named, write_stand_in
from plaudit.models.files.source import resolve
from plaudit.models.files.vocabulary import Words, end_ids_of, set_end_ids
from plaudit.models.forward.reading import ANY
from plaudit.models.forward.trunk import position_limit
from plaudit.models.lora import add_lora, quantization_options
from plaudit.models.pairs import longest_text
from plaudit.models.policy import Policy, ReferencePolicy
from plaudit.models.reward_extras import auxiliary_head
from plaudit.models.reward_model import RewardModel
from plaudit.runtime import TextFormat

LOWER_STATES_GB = 1.0
"""Memory for the states of frozen lower layers, which roles, inner epochs and passes over the data then share."""


def load_policy(
    source: str, lora: LoraSection, compute: ComputeSection, *, seed: int, temperature: float = 1.0,
    entropy_grad: bool = False,
) -> tuple[Any, Policy]:  # fmt: skip
    """Tokenizer and policy, with fresh adapters if ``lora.rank`` asks for them.

    Raises:
        ConfigError: no name given, or LoRA targets the model does not have.
        ModelError: the model cannot be loaded.
    """
    _require(source, "policy or model")
    tokenizer = load_tokenizer(source)
    options = quantization_options() if lora.quantize == "4bit" else {}
    lm = load_causal_lm(source, tokenizer=tokenizer, **options)
    _check_saved(lora, resolve(source).adapter is not None)
    policy = Policy(
        add_lora(lm, lora, task="causal", seed=seed),
        temperature=temperature,
        entropy_grad=entropy_grad,
        words=Words.known_to(tokenizer),
        **_forward(compute),
    )
    policy.saved = lora.save
    return tokenizer, policy


def _check_saved(lora: LoraSection, on_adapter: bool) -> None:
    """Refuse to save an adapter alone where it would not be on a base that is on disk as one model."""
    if lora.save != "adapter" or not (on_adapter or lora.quantize == "4bit"):
        return
    why = "starts from an adapter" if on_adapter else "has its base in 4 bit"
    raise ConfigError(
        f"save = 'adapter', and this run {why}: no model on disk would be the base of its adapter",
        where="[lora] save",
        cure="use save = 'merged', or merge first: plaudit export START --to merged" if on_adapter
        else "use save = 'merged'",
    )  # fmt: skip


def policy_format(tokenizer: Any, lm: Any, template: Literal["auto", "never"]) -> TextFormat:
    """How a language model reads texts and chats, with one set of ends: for training, sampling and the saved model.

    Raises:
        ModelError: neither tokenizer, template nor generation config name an end.
    """
    chat = ChatFormat(tokenizer, template, end_ids_of(lm))
    set_end_ids(lm, chat.end_ids)
    return TextFormat(tokenizer, chat, position_limit(lm))


def reward_format(tokenizer: Any, model: nn.Module, template: Literal["auto", "never"], *, encoder: bool) -> TextFormat:
    """How a reward model reads texts and chats."""
    longest_pair = longest_text(model, tokenizer) if encoder else None
    return TextFormat(tokenizer, ChatFormat(tokenizer, template), position_limit(model), longest_pair)


def at_temperature_one(policy: Policy, tokenizer: Any, compute: ComputeSection) -> Policy:
    """A policy over the same weights whose log-probs are those of texts, not of samples at another temperature."""
    return Policy(policy.lm, words=Words.known_to(tokenizer), **_forward(compute))


def load_reference(policy: Policy) -> ReferencePolicy:
    """The policy as it is now, frozen; its adapters switched off under LoRA."""
    return ReferencePolicy(policy)


def load_reward_model(
    source: str, lora: LoraSection, compute: ComputeSection, *, seed: int, attributes: Sequence[str] = (),
    attribute_weights: Sequence[float] = (), keep_lm: bool = False,
) -> tuple[Any, RewardModel]:  # fmt: skip
    """Tokenizer and a reward model to train, with a fresh head unless ``source`` has one already.

    Args:
        attributes, attribute_weights: one head for each quality, and its weight in the score; empty: one score.
        keep_lm: keep the LM head while training, for the loss on what was chosen.

    Raises:
        ConfigError: ``keep_lm`` with an encoder, which has no LM head.
    """
    _require(source, "model")
    if lora.save == "adapter":
        raise ConfigError(
            "a reward model is saved whole, with its scale: save = 'adapter' is for policies",
            where="[lora] save", cure="use save = 'both': the adapter then lies in model/adapter",
        )  # fmt: skip
    tokenizer = load_tokenizer(source)
    options = quantization_options() if lora.quantize == "4bit" else {}
    plain = RewardModel.start(
        source,
        tokenizer,
        seed=seed,
        options=options,
        attributes=attributes,
        attribute_weights=attribute_weights,
    )
    if keep_lm and plain.is_encoder:
        raise ConfigError(
            f"lm_coef trains the model to predict the next token, and {source} is an encoder",
            where="[algorithm] lm_coef",
            cure="set lm_coef = 0, or start from a causal language model",
        )
    adapted = add_lora(plain.model, lora, task="scalar", seed=seed)
    model = RewardModel(adapted, **_forward(compute))
    model.saved = lora.save
    if keep_lm:
        model.keep_language_model(*auxiliary_head(source, tokenizer, model.model, options))
    return tokenizer, model


def load_backbone(policy: Policy, compute: ComputeSection) -> Backbone:
    """The policy's frozen base, for reward models and critics to stand on."""
    return Backbone(policy, lower_states_gb=LOWER_STATES_GB if compute.packing else 0.0)


def build_critic(
    init: Literal["reward", "sft"], rewards: Sequence[RewardTable], backbone: Backbone, tokenizer: Any,
    lora: LoraSection, compute: ComputeSection, longest: int,
) -> Critic:  # fmt: skip
    """A critic from the first reward model, or from the policy with a zero head; under LoRA on the policy's base.

    Where the reward model cannot become the critic, the policy does, and `Backbone.notes` says why.

    Args:
        longest: tokens of the longest row of the run, if the policy can read as many.
    """
    models = [table for table in rewards if isinstance(table, ModelTable)]
    model = _as_critic(models[0].members[0], backbone, tokenizer, longest) if init == "reward" and models else None
    if model is None:
        critic = Critic.from_policy(backbone.policy.lm, lora, **_forward(compute))
        critic.lower = backbone.lower_states(critic.lower)
        return critic
    critic = Critic.from_reward(model, lora, **_forward(compute))
    if model.on_adapters:
        critic.lower = backbone.lower_states(critic.lower)
    return critic


def _as_critic(source: str, backbone: Backbone, tokenizer: Any, longest: int) -> RewardModel | None:
    """The reward model (of an ensemble: its first member) if a critic can start from it; else None, and a note."""
    # A critic reads the policy's own token ids, up to the token before the one that its value is about.
    why = ""
    if not same_tokenizer(tokenizer, load_tokenizer(source)):
        why = "it has another tokenizer"
    else:
        model = backbone.reward_model(source, tokenizer)
        reads = position_limit(model.model) or ANY
        if model.is_encoder:
            why = "it is an encoder, whose states depend on later tokens"
        elif reads < min(longest, position_limit(backbone.policy.lm) or ANY):
            why = f"it reads {reads} tokens only"
        else:
            return model
    backbone.say(
        f"the critic starts from the policy with a zero head, not from the reward model {source}, since {why}"
        " (as critic = 'sft')"
    )
    return None


def stand_in(size: str, folder: Path, *, scores: bool = False) -> str:
    """See `plaudit.backends.stand_in`."""
    known = size_named(size)
    return write_stand_in(known, folder, scores=scores) if known else ""


def parameters(source: str) -> int:
    """See `plaudit.backends.parameters`."""
    return sum(math.prod(shape) for shape in Stored.of(resolve(source)).shapes.values())


def _forward(compute: ComputeSection) -> dict[str, Any]:
    """How a model runs its forward passes."""
    return {
        "gradient_checkpointing": compute.gradient_checkpointing,
        "packing": compute.packing,
        "lower_states_gb": LOWER_STATES_GB,
    }


def _require(source: str, what: str) -> None:
    if not source:
        raise ModelError(f"no {what} was given", cure="name a hub model, a directory, or a GGUF file")
