"""The world of the curves: it can be summed over, its optimum is one, and its writer samples the law of the table."""

import sys
from pathlib import Path

import pytest
import torch

from plaudit.config.sections import SamplingSection

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def world():
    sys.path.insert(0, str(BENCHMARKS))
    import word_world

    yield word_world
    sys.path.remove(str(BENCHMARKS))


def test_rewards_by_hand(world):
    assert [world.worth(word) for word in ("cab.", "cabb", "cab", "bab.", "c.", "....")] == [5, 3, 3, 3, 1, 1]
    assert len(world.WORDS) == 1 + 3 + 9 + 27 + 81


def test_the_closed_form_is_the_best_there_is(world):
    assert float(world.REFERENCE.sum()) == pytest.approx(1) and float(world.OPTIMUM.sum()) == pytest.approx(1)

    def value(law):
        return float((law * (world.REWARDS - world.BETA * (law / world.REFERENCE).log())).sum())

    assert value(world.OPTIMUM) == pytest.approx(world.BEST_VALUE, abs=1e-9)
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = world.OPTIMUM * (0.1 * torch.randn(121, generator=draw, dtype=torch.float64)).exp()
        assert value(other / other.sum()) < world.BEST_VALUE
    assert world.regularised(world.Table(world.START)) == pytest.approx(value(world.REFERENCE), abs=1e-5)


def test_the_writer_follows_the_law_and_records_it(world):
    table = world.Table(world.START)
    prompts = [world.word_prompt(i) for i in range(4000)]
    rollouts = world.Writer(table).generate(prompts, 1, SamplingSection(), seed=0, iteration=0)
    mean = sum(world.worth(r.response) for r in rollouts) / 4000
    spread = float((world.REFERENCE * (world.REWARDS - world.expected_reward(table)).square()).sum()) ** 0.5
    assert mean == pytest.approx(world.expected_reward(table), abs=4 * spread / 4000**0.5)
    with torch.no_grad():
        again = table(world.batch_of([r.response_ids for r in rollouts[:50]])).logprobs.sum(-1)
    assert again.tolist() == pytest.approx([sum(r.logprobs) for r in rollouts[:50]], abs=1e-5)
    assert all((r.finish_reason == "stop") == r.response.endswith(".") for r in rollouts)
