"""The learner: splitting a step changes nothing, broken gradients change nothing, every parameter moves."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reward_model import RewardModel
from plaudit.backends.local.learner import LocalLearner
from plaudit.backends.local.microbatch import microbatches
from plaudit.config.sections import ComputeSection, OptimizerSection
from plaudit.errors import TrainingError
from plaudit.experience import Experience, Loss, Outputs, Pairs, Rankings

LENGTHS = [3, 7, 5, 4, 7, 2]


class Bigram(nn.Module):
    """A policy and scorer small enough to check by eye."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(0.5 * torch.randn(8, 8, generator=generator))
        self.head = nn.Parameter(torch.randn(8, generator=generator))

    def forward(self, batch):
        logp = self.table.log_softmax(-1)[batch.tokens[:, :-1]]
        entropy = -(logp.exp() * logp).sum(-1)
        picked = logp.gather(-1, batch.tokens[:, 1:, None]).squeeze(-1)
        pad = torch.zeros(len(batch.tokens), 1)
        last = batch.tokens.gather(1, batch.attention_mask.sum(-1, keepdim=True) - 1)
        return Outputs(
            logprobs=torch.cat([pad, picked], 1) * batch.response_mask,
            entropy=torch.cat([pad, entropy], 1) * batch.response_mask,
            scores=self.head[last].squeeze(-1),
        )


def experience():
    generator = torch.Generator().manual_seed(1)
    attention = torch.arange(7)[None] < torch.tensor(LENGTHS)[:, None]
    mask = attention & (torch.arange(7) > 0)
    draws = torch.randn(6, 7, generator=generator)
    return Experience(
        tokens=torch.randint(0, 8, (6, 7), generator=generator),
        attention_mask=attention,
        response_mask=mask,
        advantages=draws * mask,
        old_logprobs=(-2 + 0.1 * draws) * mask,
    )


def pairs():
    rows = experience()
    return Pairs(rows.tokens, rows.attention_mask, rows.response_mask, torch.zeros(3), torch.ones(3))


def updated(algorithm, batch, budget, **optimizer):
    section = OptimizerSection(**({"lr": 0.1, "max_grad_norm": 1e9} | optimizer))
    learner = LocalLearner(Bigram(), section, ComputeSection(tokens_per_microbatch=budget), total_steps=1)
    metrics = learner.update(algorithm.weights(batch), algorithm.loss)
    return learner, metrics


@pytest.mark.parametrize(("algorithm", "batch"), [(PPO(), experience()), (RewardModel(), pairs())])
def test_splitting_a_step_changes_nothing(algorithm, batch):
    whole, metrics = updated(algorithm, batch, 10_000)
    for budget in (16, 24):
        parts, split_metrics = updated(algorithm, batch, budget)
        assert len(list(microbatches(batch, budget))) > 1
        for name, parameter in whole.parameters.items():
            assert torch.allclose(parameter, parts.parameters[name], atol=1e-6), name
        assert split_metrics == pytest.approx(metrics, abs=1e-5)


def test_microbatches_hold_every_unit_once_and_keep_the_budget():
    batch = experience()
    units = [u for indices, part in microbatches(batch, 16) for u in indices.tolist()]
    assert sorted(units) == list(range(6))
    assert all(part.tokens.numel() <= 16 for _, part in microbatches(batch, 16))


def test_scores_come_back_in_the_order_of_the_batch():
    learner = LocalLearner(
        Bigram(), OptimizerSection(lr=1e-5), ComputeSection(tokens_per_microbatch=16), total_steps=1
    )
    batch = experience()
    assert torch.allclose(learner.read(batch, "logprobs")[0], learner.module(batch).logprobs)
    assert torch.allclose(learner.read(pairs(), "scores")[0], learner.module(pairs()).scores)


def broken(batch, out):
    return Loss(out.logprobs.sum() * float("nan"))


@pytest.mark.parametrize("seed", range(20))
def test_a_step_whose_gradient_is_not_finite_changes_nothing_at_all(seed, tmp_path):
    """A8: weights, moments and schedule are to the bit those of a run without that batch, wherever it comes."""
    generator = torch.Generator().manual_seed(seed)
    at = int(torch.randint(0, 8, (1,), generator=generator))
    draws = [torch.randn(6, 7, generator=generator) for _ in range(7)]
    good = [experience().replace(advantages=draw * experience().response_mask) for draw in draws]
    with_it, without = (
        LocalLearner(Bigram(), OptimizerSection(lr=0.1), ComputeSection(), total_steps=9) for _ in range(2)
    )
    for number in range(8):
        if number == at:
            metrics = with_it.update(experience(), broken)
            assert metrics["steps_skipped"] == 1 and not math.isfinite(metrics["grad_norm"])
        if number < 7:
            batch = PPO().weights(good[number])
            assert with_it.update(batch, PPO().loss) == without.update(batch, PPO().loss), "the rate as well"
    assert with_it.step == without.step == 7
    one, other = saved(with_it, tmp_path / "one"), saved(without, tmp_path / "other")
    assert any(name.startswith("exp_avg_sq/") for name in one)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_learner_and_its_partner_step_together_or_not_at_all():
    """The gradient of the trunk is finite, and that of the head on it is not."""
    section, compute = OptimizerSection(lr=0.1), ComputeSection()
    head = LocalLearner(Bigram(), section, compute, total_steps=9)
    trunk = LocalLearner(Bigram(), section, compute, total_steps=9, partners={"critic": head})

    def half_broken(batch, out):
        return Loss(out.logprobs.sum() + head.module.table.sum() * float("inf"))

    metrics = trunk.update(experience(), half_broken)
    assert math.isfinite(metrics["grad_norm"]) and not math.isfinite(metrics["critic/grad_norm"])
    assert metrics["steps_skipped"] == metrics["critic/steps_skipped"] == 1 and trunk.step == head.step == 0
    assert torch.equal(trunk.module.table, Bigram().table) and torch.equal(head.module.table, Bigram().table)


def test_a_step_whose_mean_ratio_is_over_its_limit_is_not_taken():
    batch = experience()
    far = batch.replace(old_logprobs=batch.old_logprobs - 4 * batch.response_mask)  # ratios of about e^4
    for algorithm, skipped in ((PPO(), 1), (GRPO(kl_coef=0.0), 0)):  # GRPO has no such limit
        learner, metrics = updated(algorithm, far, 16)  # over several microbatches
        assert metrics["policy/ratio_mean"] > 10 and metrics["steps_skipped"] == skipped
        assert torch.equal(learner.module.table, Bigram().table) == bool(skipped)
    _, metrics = updated(PPO(), batch, 16)
    assert metrics["steps_skipped"] == 0


def test_gradient_norm_is_limited_and_logged_before_the_limit():
    _, metrics = updated(PPO(), experience(), 10_000)
    _, limited = updated(PPO(), experience(), 10_000, max_grad_norm=1e-6)
    assert limited["grad_norm"] == pytest.approx(metrics["grad_norm"], rel=1e-5)


def saved(learner, directory):
    """What a learner writes into a checkpoint."""
    directory.mkdir(exist_ok=True)
    learner.save(directory)
    return load_file(directory / f"{learner.name}.safetensors")


def test_a_learner_restored_continues_bit_for_bit(tmp_path):
    algorithm, batch = PPO(), PPO().weights(experience())
    first, _ = updated(algorithm, experience(), 10_000)
    second = LocalLearner(Bigram(), first.section, first.compute, total_steps=1)
    first.save(tmp_path)
    second.restore(tmp_path)
    assert second.step == first.step == 1
    for learner in (first, second):
        learner.update(batch, algorithm.loss)
    one, other = saved(first, tmp_path / "first"), saved(second, tmp_path / "second")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert any(name.startswith("exp_avg/") for name in one), "moments are kept as well"


def test_a_learner_of_the_first_release_is_restored(tmp_path):
    """Its file says no step; that stands in the state of the trainer beside it."""
    first, _ = updated(PPO(), experience(), 10_000)
    save_file(saved(first, tmp_path), tmp_path / "policy.safetensors")
    (tmp_path / "trainer.json").write_text('{"steps": {"policy": 7}, "state": {}}')
    second = LocalLearner(Bigram(), first.section, first.compute, total_steps=9)
    second.restore(tmp_path)
    assert second.step == 7 and torch.equal(second.module.table, first.module.table)


def test_another_model_is_refused(tmp_path):
    learner, _ = updated(PPO(), experience(), 10_000)
    save_file({"weight/other": torch.zeros(1)}, tmp_path / "policy.safetensors")
    with pytest.raises(TrainingError, match="another model"):
        learner.restore(tmp_path)


def test_a_step_it_rests_moves_the_schedule_alone():
    learner = LocalLearner(Bigram(), OptimizerSection(lr=0.1), ComputeSection(), total_steps=4)
    learner.rest()
    assert learner.step == 1 and torch.equal(learner.module.table, Bigram().table)


def test_a_plan_made_afresh_forgets_moments_and_steps_and_keeps_the_weights():
    learner, _ = updated(PPO(), experience(), 10_000)
    before = learner.module.table.detach().clone()
    learner.plan(3)
    assert learner.step == 1 and learner.optimizer.state
    learner.plan(3, afresh=True)
    assert learner.step == 0 and not learner.optimizer.state and torch.equal(learner.module.table, before)


class TwoRanks:
    """The reduction of rank 0 of two: it adds what the other rank is known to have."""

    def __init__(self, ratio=0.0, norm=0.0):
        self.ratio, self.other_norm = ratio, norm

    def sums(self, values):
        return {
            name: value + (self.ratio if name == "policy/ratio_mean" else 0.0)
            for name, value in values.items()
        }

    def maxima(self, values):
        return values

    def norm(self, own):
        return (own**2 + self.other_norm**2) ** 0.5


def on_two_ranks(**other):
    section = OptimizerSection(lr=0.1, max_grad_norm=1.0)
    learner = LocalLearner(Bigram(), section, ComputeSection(), total_steps=9, reduction=TwoRanks(**other))
    metrics = learner.update(PPO().weights(experience()), PPO().loss)
    return metrics, torch.equal(learner.module.table, Bigram().table)


def test_ranks_skip_a_step_alike_by_the_figures_of_all_of_them():
    """What this rank has seen is well; what the other has is not."""
    metrics, unmoved = on_two_ranks()
    assert metrics["steps_skipped"] == 0 and not unmoved
    metrics, unmoved = on_two_ranks(ratio=20.0)
    assert metrics["steps_skipped"] == 1 and unmoved and metrics["policy/ratio_mean"] > 10
    metrics, unmoved = on_two_ranks(norm=float("inf"))
    assert metrics["steps_skipped"] == 1 and unmoved


def test_ranks_leave_out_alike_a_step_that_is_not_finite_on_any_of_them():
    reduction = TwoRanks(norm=float("nan"))
    learner = LocalLearner(Bigram(), OptimizerSection(lr=1e-5), ComputeSection(), total_steps=9, reduction=reduction)
    metrics = learner.update(PPO().weights(experience()), PPO().loss)
    assert math.isnan(metrics["grad_norm"]) and learner.step == 0 and not learner.optimizer.state


def test_the_norm_of_all_ranks_is_limited_and_logged():
    alone, shared = on_two_ranks()[0]["grad_norm"], on_two_ranks(norm=3.0)[0]["grad_norm"]
    assert shared == pytest.approx((alone**2 + 9) ** 0.5, rel=1e-5)


def test_a_partner_steps_by_the_figures_of_the_same_ranks():
    """The head on a shared trunk: a gradient of the other rank that is not finite stops its step as well."""
    section, compute = OptimizerSection(lr=0.1), ComputeSection()
    partner = LocalLearner(Bigram(), section, compute, total_steps=9)
    LocalLearner(
        Bigram(), section, compute, total_steps=9, partners={"critic": partner}, reduction=TwoRanks(norm=float("inf"))
    )
    before = partner.module.table.clone()
    metrics = partner.update(PPO().weights(experience()), PPO().loss)
    assert metrics["steps_skipped"] == 1 and torch.equal(partner.module.table, before)


@pytest.mark.parametrize("counted", [True, False])
def test_a_step_in_which_nothing_counts_is_not_taken_though_moments_are_there(counted):
    learner = LocalLearner(Bigram(), OptimizerSection(lr=0.1), ComputeSection(), total_steps=9)
    learner.update(PPO().weights(experience()), PPO().loss)
    before = learner.module.table.detach().clone()
    batch = experience()
    if not counted:
        batch = batch.replace(response_mask=torch.zeros_like(batch.response_mask))
    metrics = learner.update(PPO().weights(batch), PPO().loss)
    assert metrics["steps_skipped"] == float(not counted) and "weighted" not in metrics
    assert torch.equal(learner.module.table, before) != counted
    assert learner.step == 2, "the schedule goes on"


def test_a_step_with_ties_only_is_not_taken():
    rows = experience()
    ties = Rankings(
        rows.tokens, rows.attention_mask, rows.response_mask, torch.ones(6), torch.tensor([3, 3])
    )
    _, metrics = updated(RewardModel(), ties, 10_000)
    assert metrics["steps_skipped"] == 1
