"""Batches whose gradient is not finite: what is one batch, what three in a row are, and what waits meanwhile."""

import math
from dataclasses import replace

import pytest
import torch
from tests.training.test_empty_steps import PROMPTS, Counted, Echo, by_response

from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.sft import SFT
from plaudit.config.sections import SamplingSection
from plaudit.errors import Ended
from plaudit.experience import Experience
from plaudit.runtime import Runtime
from plaudit.training.broken import BrokenBatches
from plaudit.training.offline import OfflineLoop
from plaudit.training.online import OnlineLoop


class Fresh(Echo):
    """A generator that draws from what it was given last."""

    def generate(self, prompts, n, sampling, *, seed, iteration):
        drawn = super().generate(prompts, n, sampling, seed=seed, iteration=iteration)
        return [replace(rollout, policy_version=iteration) for rollout in drawn]


class Sick(Counted):
    """A learner whose gradients are not finite in the updates of these numbers."""

    def __init__(self, *bad):
        super().__init__()
        self.bad = set(bad)

    def update(self, batch, loss, further=()):
        metrics = super().update(batch, loss)
        broken = self.updates - 1 in self.bad
        return metrics | ({"grad_norm": math.inf, "steps_skipped": 1.0} if broken else {"steps_skipped": 0.0})


class Kept(list):
    """What was kept, as (step, number of units)."""

    def __call__(self, step, broken):
        self.append((step, len(broken.units)))


def train(algorithm, iterations, bad, critic=None):
    """Kept batches, metrics, and the loop after so many iterations of four updates each."""
    kept, history = Kept(), []
    machines = Runtime(Fresh(), Sick(*bad), Counted(), by_response, critic)
    loop = OnlineLoop(
        algorithm, machines, PROMPTS, SamplingSection(max_new_tokens=5), 4, 0, 0,
        lambda number, metrics, rollouts: history.append(metrics), broken=BrokenBatches(kept),
    )  # fmt: skip
    try:
        loop.run(iterations)
    except Ended as ended:
        kept.append(ended.what)
    return kept, history, loop


FOUR_EPOCHS = GRPO(group_size=2, epochs=4, minibatches=1)


def test_four_epochs_over_one_batch_are_one_bad_batch():
    kept, history, loop = train(FOUR_EPOCHS, 4, range(4, 12))
    assert kept == [(2, 8), (3, 8)] and len(history) == 4, "two batches in a row, and the run goes on"
    assert [metrics["steps_skipped"] for metrics in history] == [0, 1, 1, 0] and loop.broken.in_a_row == 0


def test_three_different_batches_in_a_row_end_the_run():
    kept, history, _ = train(FOUR_EPOCHS, 9, range(4, 99))
    assert kept[:3] == [(2, 8), (3, 8), (4, 8)] and len(history) == 4
    assert "3 different batches in a row, the last one in step 4" in kept[3] and len(kept) == 4


def test_a_bad_minibatch_is_kept_once_and_does_not_count_beside_good_ones():
    algorithm = GRPO(group_size=2, epochs=2, minibatches=2)
    bad = [number for number in range(40) if number % 4 in (0, 2)]
    kept, history, _ = train(algorithm, 5, bad)
    assert kept == [(step, 4) for step in range(1, 6)] and len(history) == 5
    assert all(metrics["steps_skipped"] == 0.5 and math.isfinite(metrics["grad_norm"]) for metrics in history)


def test_the_kl_controller_waits_with_the_optimizer():
    algorithm = PPO(epochs=4, minibatches=1, critic_warmup=0)
    _, _, loop = train(algorithm, 1, range(4), Counted())
    assert loop.carry == algorithm.start()
    _, _, loop = train(algorithm, 1, (), Counted())
    assert loop.carry != algorithm.start()


def test_a_critic_whose_gradient_is_not_finite_counts_as_well():
    kept, _, _ = train(PPO(epochs=4, minibatches=1, critic_warmup=0), 9, (), Sick(*range(99)))
    assert "3 different batches" in kept[3]


@pytest.mark.parametrize(("bad", "ends"), [((1, 2), False), ((1, 2, 3), True), ((0, 2, 4, 6), False)])
def test_each_batch_of_a_data_set_is_one(bad, ends):
    kept, seen = Kept(), []
    mask = torch.ones(2, 3, dtype=torch.bool)
    loop = OfflineLoop(
        SFT(), Sick(*bad), lambda rows: Experience(torch.ones(2, 3), mask, mask), 16, 2, 1, 0,
        lambda step, metrics: seen.append(step), BrokenBatches(kept),
    )  # fmt: skip
    if ends:
        with pytest.raises(Ended, match="3 different batches in a row, the last one in step 4"):
            loop.run()
    else:
        loop.run()
    assert kept == [(number + 1, 2) for number in bad] and len(seen) == (4 if ends else 8)


def test_the_count_goes_on_after_a_resume():
    counted = BrokenBatches()
    counted.in_a_row = 2
    counted.saw(Experience(*[torch.ones(1, 2)] * 3), torch.tensor([0]), {"grad_norm": math.nan})
    counted.end(7)
    with pytest.raises(Ended, match="the last one in step 7"):
        counted.check(7)
