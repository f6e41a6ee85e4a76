"""A run that does not move says so after a tenth of it, with the cure; one that moves does not."""

import pytest

from plaudit.algorithms.dpo import DPO
from plaudit.config.sections import OptimizerSection
from plaudit.jobs.preference import DPOJob
from plaudit.runs.files import read_lines
from plaudit.stages.moving import MovingWatch
from plaudit.stages.online.rl import run_rl
from plaudit.stages.preference.dpo import run_dpo


def said(rows, total):
    watch = MovingWatch(total)
    return {step: words for step, row in enumerate(rows, 1) if (words := watch.look(step, row))}


def test_by_hand():
    # After 10 of 100 steps at one rate a KL of 0.0001 becomes 0.0001 * 100 = 0.01; 1 nat needs a way 10 times as long.
    (found,) = said([{"lr": 1e-6, "objective/kl": 1e-4}] * 30, 100).items()
    assert found[0] == 10
    assert "KL to the start is 0.0001 nats per response" in found[1] and "it will be 0.01 at the end" in found[1]
    assert "Raise --lr, which is 1e-06, about 10 times" in found[1]
    assert not said([{"lr": 1e-6, "objective/kl": 6e-4}] * 30, 100), "0.06 nats is a way"


def test_a_margin_grows_in_proportion_and_noise_of_either_sign_counts_as_a_way():
    rows = [{"lr": 1e-6, "rewards/margins": 0.001 * (-1) ** step} for step in range(20)]
    (found,) = said(rows, 100).values()
    assert "margin of the implicit rewards is 0.001" in found and "it will be 0.01 at the end" in found
    assert not said([{"lr": 1e-6, "rewards/margins": 0.01}] * 20, 100)


def test_steps_in_which_the_policy_rests_do_not_count():
    rows = [{"critic/lr": 1e-3, "objective/kl": 0.0}] * 12 + [{"lr": 1e-4, "objective/kl": 1e-6}] * 8
    found = said(rows, 100)
    assert list(found) == [13], "the first at which there is a rate"
    assert not said([{"loss": 0.7, "lr": 1e-5}] * 50, 50), "SFT and reward models have no such distance"
    assert not said([{"lr": 1e-9, "objective/kl": 0.0}] * 4, 4), "too short to say"


@pytest.mark.parametrize(("rate", "moves"), [(1e-9, False), (1e-2, True)])
def test_a_run_says_so(world, tmp_path, rate, moves):

    optimizer = OptimizerSection(lr=rate, schedule="constant", warmup_fraction=0)
    online = run_rl(world.rl(tmp_path / "ppo", iterations=8, optimizer=optimizer, reward=("rule:length:3",)))
    given = world.reward(tmp_path / "unused")
    offline = run_dpo(
        DPOJob(
            model=world.lm, dataset=given.dataset, out=str(tmp_path / "dpo"), batch_size=2, epochs=3,
            optimizer=optimizer, algorithm=DPO(), log=given.log,
        )
    )  # fmt: skip
    for run in (online, offline):
        told = [row["message"] for row in read_lines(run / "events.jsonl") if row["event"] == "caution"]
        assert any("hardly moves" in message for message in told) is not moves, run
