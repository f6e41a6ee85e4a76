"""Against TRL 1.12.0's reward trainer: the same model and pairs give the same loss and the same gradients."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from plaudit.algorithms.reward_model import RewardModel as Algorithm
from plaudit.experience import Pairs
from plaudit.models.reward_model import RewardModel
from plaudit.models.tiny import tiny_classifier, tiny_tokenizer

RewardTrainer = pytest.importorskip("trl", reason="pip install 'plaudit[oracle]'").RewardTrainer


def pairs(margins):
    """Chosen, rejected, chosen ... of different lengths, padded on the right."""
    draw = torch.Generator().manual_seed(0)
    lengths = torch.tensor([7, 5, 9, 9, 4, 8])
    mask = torch.arange(9) < lengths[:, None]
    tokens = torch.where(mask, torch.randint(4, 20, mask.shape, generator=draw), 0)
    return Pairs(tokens, mask, mask, torch.tensor(margins), torch.ones(3))


def theirs(model, batch, centering, margins):
    """Their ``compute_loss``, called on a stand-in for the trainer with what it reads."""
    order = torch.tensor([0, 2, 4, 1, 3, 5])  # they stack all chosen on all rejected
    inputs = {"input_ids": batch.tokens[order], "attention_mask": batch.attention_mask[order].long()}
    if margins:
        inputs["margin"] = batch.margins
    same = SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x)
    trainer = SimpleNamespace(
        model=model,
        args=SimpleNamespace(center_rewards_coefficient=centering or None),
        accelerator=same,
        _metrics={"train": defaultdict(list), "eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    return RewardTrainer.compute_loss(trainer, model, inputs), trainer._metrics["eval"]


@pytest.mark.parametrize("centering", [0.0, 0.01])
@pytest.mark.parametrize("margins", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_loss_gradients_and_metrics_agree(kind, margins, centering):
    tokenizer = tiny_tokenizer(["the cat sat on a mat and saw dogs run far away from big old trees"], 64)
    plain = tiny_classifier(kind, tokenizer, scale=0.2)
    model = RewardModel(plain)
    batch = pairs([0.5, 1.0, 0.0])
    algorithm = Algorithm(margin=float(margins), centering=centering)
    result = algorithm.loss(algorithm.weights(batch), model(batch))
    result.value.backward()
    ours = {name: p.grad.clone() for name, p in plain.named_parameters() if p.grad is not None}
    plain.zero_grad()
    loss, metrics = theirs(plain, batch, centering, margins)
    loss.backward()
    assert result.value.item() == pytest.approx(loss.item(), abs=1e-5)
    assert result.metrics["reward_model/accuracy"].item() == pytest.approx(metrics["accuracy"][0], abs=1e-6)
    assert result.metrics["reward_model/margin"].item() == pytest.approx(metrics["margin"][0], abs=1e-5)
    for name, p in plain.named_parameters():
        if p.grad is not None:
            assert torch.allclose(ours[name], p.grad, atol=1e-5), name
