"""SFT and reward model: weighted sums on hand-worked numbers."""

import math

import pytest
import torch

from plaudit.algorithms.reward_model import RewardModel
from plaudit.algorithms.sft import SFT
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Outputs, Pairs


def pairs(n, targets=None, margins=None):
    ones = torch.ones(2 * n, 3, dtype=torch.bool)
    return Pairs(
        tokens=torch.zeros(2 * n, 3, dtype=torch.long),
        attention_mask=ones,
        response_mask=ones & torch.tensor([False, True, True]),
        margins=torch.tensor(margins or [0.0] * n),
        targets=torch.tensor(targets or [1.0] * n),
    )


def reward_loss(algorithm, scores, **changes):
    batch = algorithm.weights(pairs(len(scores) // 2, **changes))
    return algorithm.loss(batch, Outputs(scores=torch.tensor(scores)))


def test_sft_is_the_mean_over_response_tokens():
    mask = torch.tensor([[False, True, False], [False, True, True]])
    batch = SFT().weights(Experience(torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.bool), mask))
    logprobs = torch.tensor([[-9.0, -1.0, -9.0], [-9.0, -2.0, -3.0]])
    assert SFT().loss(batch, Outputs(logprobs=logprobs, entropy=torch.zeros(2, 3))).value.item() == pytest.approx(2.0)


def test_b1_pairs():
    loss = reward_loss(RewardModel(), [2.0, 1.0, 3.0, 3.0])
    assert loss.value.item() == pytest.approx((0.313262 + math.log(2)) / 2, abs=1e-6)
    assert loss.metrics["reward_model/accuracy"].item() == pytest.approx(0.75), "a tie counts a half"
    assert loss.metrics["reward_model/margin"].item() == pytest.approx(0.5)


def test_b1_variants():
    assert reward_loss(RewardModel(label_smoothing=0.1), [2.0, 1.0]).value.item() == pytest.approx(0.413262, abs=1e-6)
    margin = reward_loss(RewardModel(margin=1.0), [2.0, 1.0], margins=[0.5])
    assert margin.value.item() == pytest.approx(0.474077, abs=1e-6)
    centered = reward_loss(RewardModel(centering=0.01), [2.0, 1.0])
    assert centered.value.item() == pytest.approx(0.313262 + 0.09, abs=1e-6)


def test_agreement_is_a_soft_target():
    soft = reward_loss(RewardModel(), [2.0, 1.0], targets=[0.9]).value.item()
    hard = reward_loss(RewardModel(use_agreement=False), [2.0, 1.0], targets=[0.9]).value.item()
    assert soft == pytest.approx(0.413262, abs=1e-6) and hard == pytest.approx(0.313262, abs=1e-6)


def test_labels_train_log_odds():
    ones = torch.ones(2, 3, dtype=torch.bool)
    batch = Experience(torch.zeros(2, 3, dtype=torch.long), ones, ones, rewards=torch.tensor([1.0, 0.0]))
    loss = RewardModel().loss(RewardModel().weights(batch), Outputs(scores=torch.tensor([1.0, 1.0])))
    assert loss.value.item() == pytest.approx((0.313262 + 1.313262) / 2, abs=1e-6)
    assert loss.metrics["reward_model/accuracy"].item() == pytest.approx(0.5)


@pytest.mark.parametrize("wrong", [{"label_smoothing": 0.5}, {"lm_coef": -0.1}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        RewardModel(**wrong)
