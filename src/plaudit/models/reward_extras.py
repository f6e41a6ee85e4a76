"""What is done with reward models beside scoring: features, a head set by hand, a kept LM head, mean weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from plaudit.errors import ConfigError, ModelError
from plaudit.experience import Batch, Outputs
from plaudit.models.classifier import last_real
from plaudit.models.files.load import load_causal_lm
from plaudit.models.forward.head import LMHead
from plaudit.models.forward.trunk import bare, body, hidden_states
from plaudit.models.length import LengthRule
from plaudit.models.policy import Policy
from plaudit.models.reward_model import RewardModel


class LastStates(nn.Module):
    """A decoder reward model without its head: ``features [B, D]``, the state at the last real token, fp32.

    A linear probe on these features (`functional/probe.py`) is a head that can be fitted to stored vectors: each
    row passes through the trunk once, whatever the number of steps of the fit.
    """

    def __init__(self, model: RewardModel) -> None:
        super().__init__()
        assert not model.is_encoder, "an encoder's head reads more than one state"
        self.trunk, self.packing, self.lower = body(model.model), model.packing, model.lower
        self.together = model.together

    def forward(self, batch: Batch) -> Outputs:
        """``features`` and nothing else."""
        mask = batch.attention_mask
        hidden = hidden_states(
            self.trunk, batch.tokens, mask, packing=self.packing, lower=self.lower, together=self.together
        )
        rows = torch.arange(len(mask), device=hidden.device)
        return Outputs(features=hidden[rows, last_real(mask)].float())


@torch.no_grad()
def set_head(model: RewardModel, weight: Tensor) -> None:
    """Make the raw score ``features @ weight`` (``weight [D]``), with bias 0."""
    head: Any = bare(model.model).score
    assert head.weight.shape[0] == 1, "one score"
    head.weight.copy_(weight[None])
    # Comparisons do not determine the zero of the score, so a bias left from a random start would be a constant
    # without meaning.
    if head.bias is not None:
        head.bias.zero_()


def auxiliary_head(
    source: str, tokenizer: PreTrainedTokenizerBase, classifier: nn.Module, options: dict[str, Any]
) -> tuple[LMHead, nn.Module]:
    """The LM head of ``source`` for the trunk of a classifier that was started from it, and its output layer.

    With it a reward model also learns to predict the chosen responses while it is trained
    (`RewardModel.keep_language_model`).

    Raises:
        ModelError: the source is no causal language model.
    """
    policy = Policy(load_causal_lm(source, tokenizer=tokenizer, **options))
    if policy.head.whole:
        raise ModelError(
            f"{source} has an output layer of its own kind, which cannot be kept beside a score",
            where="[algorithm] lm_coef",
            cure="set lm_coef = 0, or start from another model",
        )
    lm: Any = bare(policy.lm)
    layer = lm.get_output_embeddings()
    # A classifier has no output layer of its own. Where the source ties it to the embeddings, the embeddings that are
    # trained are the classifier's; pointing at the ones just loaded would leave the two to drift apart. An untied
    # layer is frozen: it is not saved with the reward model, so what it learned would be lost.
    if layer.weight is lm.get_input_embeddings().weight:
        layer.weight = bare(classifier).get_input_embeddings().weight
    else:
        layer.requires_grad_(False)
    return policy.head, layer


def averaged(paths: Sequence[str], tokenizer: Any) -> RewardModel:
    """One reward model whose weights are the mean of those of several (WARM, Rame et al. 2024, arXiv:2401.12187).

    They must have been trained from the same pretrained model: only then do they lie in one valley of the loss, and
    their mean is a reward model. What the members have memorised differs and averages out; it costs one model to run.
    Mean and deviation of the scores, and the correction for length, are averaged as well.

    Raises:
        ConfigError: fewer than two, members of another shape, or with different corrections for length.
    """
    if len(paths) < 2:
        raise ConfigError(
            f"weights are averaged over at least two reward models, found {len(paths)}", where="reward",
            cure="name several with commas between them, or leave @weights out",
        )  # fmt: skip
    mean = RewardModel.load(paths[0], tokenizer)
    tensors = {name: tensor.detach().float() for name, tensor in mean.model.state_dict().items()}
    rules = [mean.length_rule]
    for path in paths[1:]:
        member = RewardModel.load(path, tokenizer)
        others = member.model.state_dict()
        if {k: v.shape for k, v in others.items()} != {k: v.shape for k, v in tensors.items()}:
            raise ConfigError(
                f"{path} has other weights than {paths[0]}: their mean is no model", where="reward",
                cure="average reward models that were trained from the same model, such as those of --members 3",
            )  # fmt: skip
        rules.append(member.length_rule)
        for name, tensor in others.items():
            tensors[name] += tensor.float()
        mean.mean, mean.std = mean.mean + member.mean, mean.std + member.std
    if len({rule.kind for rule in rules}) > 1:
        raise ConfigError(
            "the reward models correct for length in different ways", where="reward",
            cure="train them with the same --length",
        )  # fmt: skip
    own = mean.model.state_dict()
    mean.model.load_state_dict({name: (t / len(paths)).to(own[name].dtype) for name, t in tensors.items()})
    mean.mean, mean.std = mean.mean / len(paths), mean.std / len(paths)
    numbers = [(rule.coef, rule.centre, rule.typical) for rule in rules]
    mean.length_rule = LengthRule(rules[0].kind, *(sum(each) / len(paths) for each in zip(*numbers, strict=True)))
    return mean
