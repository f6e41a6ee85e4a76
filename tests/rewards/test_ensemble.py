"""Several reward models as one reward."""

from __future__ import annotations

import math

import pytest

from plaudit.errors import ConfigError
from plaudit.records import Prompt, RewardResult, Rollout
from plaudit.rewards.combine import EnsembleReward, combine

ROLLOUT = Rollout.single(Prompt("p", "Hi"), 0, (1,), (2,), (0.0,), "text", "stop")


class Fixed:
    name = "reward_model"

    def __init__(self, value: float | None) -> None:
        self.value = value

    def __call__(self, rollouts):
        return [RewardResult(self.value, error="" if self.value is not None else "broken")] * len(rollouts)


@pytest.mark.parametrize(
    ("rule", "coef", "expected"),
    [
        ("mean", 1.0, 2.0),
        ("min", 1.0, 0.0),
        ("mean_minus_std", 1.0, 2.0 - math.sqrt(8 / 3)),
        ("mean_minus_std", 0.5, 2.0 - 0.5 * math.sqrt(8 / 3)),
    ],
)
def test_rules_by_hand(rule, coef, expected):
    result = EnsembleReward([Fixed(0.0), Fixed(2.0), Fixed(4.0)], rule, coef)([ROLLOUT])[0]
    assert result.value == pytest.approx(expected)
    assert result.parts == pytest.approx({"reward_model": expected, "ensemble_std": math.sqrt(8 / 3)})
    assert combine([0.0, 2.0, 4.0], rule, coef) == pytest.approx(expected)


def test_an_error_of_a_member_is_an_error_of_the_ensemble():
    result = EnsembleReward([Fixed(0.0), Fixed(None)])([ROLLOUT])[0]
    assert result.value is None and result.error == "member 1: broken"


def test_one_member_is_no_ensemble():
    with pytest.raises(ConfigError, match="at least two"):
        EnsembleReward([Fixed(0.0)])
