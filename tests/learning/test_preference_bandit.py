"""Three arms, rewards (1, 0, 0), and preferences without end: each method must reach the policy that its loss implies.

Every ordered pair stands in the data once, weighted by how often Bradley-Terry annotators would prefer it so.
"""

import math

import pytest
import torch
from tests.learning.test_bandit import BETA, OPTIMUM, REWARDS, ArmPuller, Arms, one_token_prompt, reward

from plaudit.algorithms.dpo import DPO, IPO, ORPO, Hinge, SimPO
from plaudit.algorithms.kto import KTO
from plaudit.algorithms.online_dpo import OnlineDPO
from plaudit.backends.local.learner import LocalLearner, LocalScorer
from plaudit.config.sections import ComputeSection, OptimizerSection, SamplingSection
from plaudit.experience import Experience, Pairs
from plaudit.runtime import Runtime
from plaudit.training.online import OnlineLoop

STEPS = 200
PREFERRED = 1 / (1 + math.exp(-1))  # how often arm 0 is preferred to each of the others


def learner_of(arms, lr=0.1, steps=STEPS):
    section = OptimizerSection(lr=lr, schedule="linear", warmup_fraction=0.0)
    return LocalLearner(arms, section, ComputeSection(), total_steps=steps)


def feedback():
    """All ordered pairs of two arms, and the share of annotators' verdicts that each has."""
    ordered = [(w, r) for w in range(3) for r in range(3) if w != r]
    tokens = torch.tensor([[0, arm] for pair in ordered for arm in pair])
    real = torch.ones_like(tokens, dtype=torch.bool)
    mask = real & torch.tensor([False, True])
    shares = [1 / (1 + math.exp(REWARDS[r] - REWARDS[w])) / 3 for w, r in ordered]
    batch = Pairs(
        tokens,
        real,
        mask,
        torch.zeros(6),
        torch.ones(6),
        ref_logprobs=mask * torch.full((12, 2), -math.log(3)),
    )
    return batch, torch.tensor(shares)


def learned(algorithm):
    arms = Arms()
    learner = learner_of(arms)
    batch, shares = feedback()
    for _ in range(STEPS):
        learner.update(algorithm.weights(batch).replace(loss_weights=shares), algorithm.loss)
    return arms.logits.softmax(-1).tolist()


def law(first):
    """The policy whose log-prob of arm 0 is so far over that of the others."""
    return [math.exp(first) / (math.exp(first) + 2), *[1 / (math.exp(first) + 2)] * 2]


def best_gap(loss):
    """Where a loss of the log-ratio of arm 0 to another one is smallest, by looking everywhere."""
    gaps = torch.linspace(-6, 6, 240_001, dtype=torch.float64)
    return float(gaps[loss(gaps).argmin()])


def test_dpo_reaches_the_optimum_of_the_regularised_bandit():
    assert law(1 / BETA) == pytest.approx(OPTIMUM, abs=1e-6)
    assert learned(DPO(beta=BETA)) == pytest.approx(OPTIMUM, abs=1e-3)


def test_soft_labels_say_the_same_as_many_hard_ones():
    arms, (batch, _) = Arms(), feedback()
    units = torch.tensor([0, 1, 3])  # 0 over 1, 0 over 2, 1 over 2
    soft = batch.select(units).replace(targets=torch.tensor([PREFERRED, PREFERRED, 0.5]))
    learner, algorithm = learner_of(arms), DPO(beta=BETA)
    for _ in range(STEPS):
        learner.update(algorithm.weights(soft), algorithm.loss)
    assert arms.logits.softmax(-1).tolist() == pytest.approx(OPTIMUM, abs=1e-3)


def test_robust_dpo_sees_through_flipped_labels():
    arms, (batch, shares) = Arms(), feedback()
    flipped = 0.2
    turned = torch.tensor([2, 4, 0, 5, 1, 3])  # the unit with the same two arms the other way round
    noisy = (1 - flipped) * shares + flipped * shares[turned]
    learner, algorithm = learner_of(arms), DPO(beta=BETA, label_smoothing=flipped, robust=True)
    for _ in range(STEPS):
        learner.update(algorithm.weights(batch).replace(loss_weights=noisy), algorithm.loss)
    assert arms.logits.softmax(-1).tolist() == pytest.approx(OPTIMUM, abs=1e-3)


def test_ipo_aims_at_a_finite_gap():
    expected = law((2 * PREFERRED - 1) / (2 * BETA))
    assert learned(IPO(beta=BETA)) == pytest.approx(expected, abs=1e-3)


def test_hinge_stops_at_its_margin():
    assert learned(Hinge(beta=2.0)) == pytest.approx(law(1 / 2.0), abs=5e-3)


def test_simpo_without_a_reference():
    def loss(gap):
        sure = torch.nn.functional.softplus(-(2 * gap - 0.5))
        return PREFERRED * sure + (1 - PREFERRED) * torch.nn.functional.softplus(2 * gap + 0.5)

    assert learned(SimPO(beta=2.0, margin=0.5)) == pytest.approx(law(best_gap(loss)), abs=2e-3)


def test_orpo_without_a_reference():
    chosen = (
        torch.tensor([2 * PREFERRED, 1.5 - PREFERRED, 1.5 - PREFERRED]) / 3
    )  # how often each arm is chosen

    def loss(gap):
        others = 1 / (gap.exp() + 2)
        first = gap.exp() * others
        odds = (first / (1 - first)).log() - (others / (1 - others)).log()
        wins = 2 / 3 * PREFERRED * torch.nn.functional.softplus(-odds)
        losses = 2 / 3 * (1 - PREFERRED) * torch.nn.functional.softplus(odds)
        return -chosen[0] * first.log() - 2 * chosen[1] * others.log() + 0.5 * (wins + losses)

    assert learned(ORPO(ratio_coef=0.5)) == pytest.approx(law(best_gap(loss)), abs=2e-3)


def test_kto_follows_the_majority_of_thumbs():
    """Its value is linear in sigma: an arm with more thumbs up than down is raised without end, and only such a one."""
    arms = Arms()
    tokens = torch.tensor([[0, arm] for arm in (0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2)])
    real = torch.ones_like(tokens, dtype=torch.bool)
    mask = real & torch.tensor([False, True])
    batch = Experience(
        tokens, real, mask, rewards=torch.tensor([1.0] * 4 + [0, 1, 0, 0, 1, 0, 0]),
        ref_logprobs=mask * torch.full((11, 2), -math.log(3)), mismatched_kl=torch.zeros(11),
    )  # fmt: skip
    learner, algorithm = learner_of(arms), KTO(beta=BETA)
    for _ in range(STEPS):
        learner.update(algorithm.weights(batch), algorithm.loss)
    assert arms.logits.softmax(-1)[0] > 0.99


def test_online_dpo_stops_where_its_smoothing_says():
    smoothing = 0.3
    arms = Arms()
    runtime = Runtime(
        ArmPuller(arms),
        learner_of(arms, steps=80),
        LocalScorer(Arms(), ComputeSection()),
        reward,
    )
    seen = []
    algorithm = OnlineDPO(beta=BETA, label_smoothing=smoothing)
    prompts = [one_token_prompt(i) for i in range(64)]
    OnlineLoop(
        algorithm,
        runtime,
        prompts,
        SamplingSection(),
        64,
        0,
        0,
        lambda step, metrics, rollouts: seen.append(metrics),
    ).run(80)
    expected = law(math.log((1 - smoothing) / smoothing) / BETA)
    assert arms.logits.softmax(-1).tolist() == pytest.approx(expected, abs=0.01)
    assert 0 < seen[-1]["pairs/kept_share"] < 1 and seen[-1]["policy/loss"] < math.log(2)
