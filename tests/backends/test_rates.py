"""Learning rates by the size of the model: by hand, and what a user is told of them."""

import pytest
from torch import nn

from plaudit.backends.local.rates import LARGEST, auto_rate, rated
from plaudit.config.sections import OptimizerSection

MODEL = nn.Linear(10_000, 70, bias=False)  # 0.7 million weights, a ten-thousandth of 7 billion


@pytest.mark.parametrize(
    ("trained", "rate"), [("sft", 1e-3), ("reward", 5e-4), ("preference", 3.3e-4), ("online", 1e-4), ("critic", 5e-4)]
)
def test_a_model_of_a_ten_thousandth_of_the_size_has_a_hundred_times_the_rate(trained, rate):
    assert auto_rate(trained, 700_000) == pytest.approx(rate)
    assert auto_rate(trained, 700_000, adapters=True) == pytest.approx(min(10 * rate, LARGEST))


def test_auto_becomes_a_number_and_is_said():
    optimizer, notes = rated(OptimizerSection(weight_decay=0.1), "online", MODEL, adapters=False)
    assert (optimizer.rate, optimizer.weight_decay) == (1e-4, 0.1)
    assert notes == ("lr auto is 0.0001 for 0.7 million parameters",)
    _, notes = rated(OptimizerSection(), "critic", MODEL, adapters=True, flag="critic_lr")
    assert notes == ("critic_lr auto is 0.003 for adapters on 0.7 million parameters",)


@pytest.mark.parametrize(("given", "said"), [
    (1e-4, ""), (2e-5, ""), (1e-3, ""), (1e-6, "lr 1e-06 is 0.01 times what is usual"),
    (0.1, "lr 0.1 is 1000 times as much as what is usual for 0.7 million parameters, which is 0.0001"),
])  # fmt: skip
def test_a_rate_far_from_the_rule_is_said(given, said):
    optimizer, notes = rated(OptimizerSection(lr=given), "online", MODEL, adapters=False)
    assert optimizer.rate == given
    assert bool(notes) == bool(said) and all(said in note for note in notes)
