"""The cat's grid world: every method comes close to value iteration, and the gradients are those of theory."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "examples" / "cat_grid_world"
NAMES = ("world", "episodes", "methods", "train", "variance", "pictures", "main")


@pytest.fixture(scope="module")
def cat():
    """The modules of the example, which import each other by their plain names, as a script's do."""
    before = {name: sys.modules.pop(name, None) for name in NAMES}
    sys.path.insert(0, str(FOLDER))
    yield type("Cat", (), {name: importlib.import_module(name) for name in NAMES})
    sys.path.remove(str(FOLDER))
    for name in NAMES:
        del sys.modules[name]
        if before[name] is not None:
            sys.modules[name] = before[name]


def uniform(world):
    return torch.full((len(world.cells), 4), 0.25)


def test_a_corridor_by_hand(cat):
    world = cat.world.World(rows=("C.M",), drunk=0.0, gamma=0.5)
    values, policy = world.best()
    assert values.tolist() == [50.0, 100.0, 0.0], (
        "the meat is two steps away, the second one is discounted once"
    )
    assert policy[:2].argmax(1).tolist() == [1, 1]  # right
    assert world.expected_return(policy).item() == pytest.approx(50.0)


def test_walls_brooms_tub_and_drink_by_hand(cat):
    world = cat.world.World(rows=("CB", "#T"), drunk=0.2, gamma=0.5)
    assert world.transitions[0].tolist() == [
        pytest.approx([0.95, 0.05, 0, 0]),  # up: stays, and stumbles right one time in twenty
        pytest.approx([0.15, 0.85, 0, 0]),
        pytest.approx([0.95, 0.05, 0, 0]),  # down is a wall
        pytest.approx([0.95, 0.05, 0, 0]),
    ]
    # All moves to the broom alike: V0 = .05 (-1 + V1 / 2) + .95 V0 / 2 under "up" everywhere, V1 likewise.
    values = world.values(torch.tensor([[1.0, 0, 0, 0]] * 4))
    v1 = values[1].item()
    assert values[0].item() == pytest.approx(0.05 * (-1 + v1 / 2) + 0.95 * values[0].item() / 2)
    assert v1 == pytest.approx(0.9 * (-1 + v1 / 2) + 0.05 * -10 + 0.05 * values[0].item() / 2)
    assert values[3].item() == 0, "nothing comes after the tub"


def test_value_iteration_is_best_and_consistent(cat):
    world = cat.world.World()
    values, policy = world.best()
    assert torch.allclose(world.values(policy), values, atol=1e-6)
    assert torch.allclose(world.action_values(values).amax(1), values, atol=1e-8)
    assert world.expected_return(uniform(world)) < 0 < world.expected_return(policy)


def test_a_drunker_cat_expects_less(cat):
    best = [float(w.best()[0][w.start]) for w in (cat.world.World(drunk=d) for d in (0.0, 0.1, 0.5))]
    assert best[0] > best[1] > best[2]


def test_played_returns_are_the_exact_values(cat):
    world, draw = cat.world.World(), torch.Generator().manual_seed(0)
    played = cat.episodes.play(world, uniform(world), 4000, 200, draw)
    returns = (played.rewards * world.gamma ** torch.arange(played.rewards.shape[1])).sum(1)
    error = float(returns.std()) / len(returns) ** 0.5
    assert float(returns.mean()) == pytest.approx(float(world.expected_return(uniform(world))), abs=4 * error)
    assert not played.rewards[~played.mask].any()


@pytest.mark.parametrize("index", range(6), ids=["return", "to-go", "mean", "value", "gae", "ppo"])
def test_every_method_comes_close_to_value_iteration(cat, index):
    world, plan = cat.world.World(), cat.train.Plan(iterations=15 if index == 5 else 40)
    method = cat.methods.METHODS[index]
    best = float(world.best()[0][world.start])
    for seed in (0, 1):
        curve = cat.train.Learning(world, method, plan, seed).run().curve
        assert curve[0] < 0 and curve[-1] > 0.95 * best, (method.name, seed, curve[-1])


def test_each_idea_of_the_slides_lowers_the_variance_and_none_moves_the_mean(cat):
    world = cat.world.World()
    found = cat.variance.spreads(
        world, torch.zeros(len(world.cells), 4), cat.methods.METHODS[:5], episodes=4000, seed=1
    )
    spreads = list(found.values())
    assert list(found) == ["full return", "rewards-to-go", "mean baseline", "value baseline", "GAE"]
    for more, less in zip(spreads[:-1], spreads[1:], strict=True):
        assert more.variance > less.variance + 2 * less.error
    assert all(spread.miss < 1.5 for spread in spreads), found


def test_a_wrong_gradient_is_noticed(cat):
    world = cat.world.World()
    preferences = torch.zeros(len(world.cells), 4)
    played = cat.episodes.play(world, preferences.softmax(-1), 4000, 200, torch.Generator().manual_seed(1))

    def halved(played, values, gamma):
        return 0.5 * cat.methods.generalised(played, values, gamma)

    gradients = cat.variance.estimates(world, preferences, halved, played)
    assert cat.variance._spread(gradients, cat.variance.exact_gradient(world, preferences)).miss > 5


def test_the_example_runs(cat, tmp_path, capsys):
    runs = cat.main.main(
        f"--seeds 1 --iterations 2 --episodes 50 --pictures {tmp_path} --watch --pause 0".split()
    )
    assert set(runs) == {method.name for method in cat.methods.METHODS}
    assert {p.name for p in tmp_path.iterdir()} == {"cat_policy.png", "cat_curves.png", "cat_variance.png"}
    printed = capsys.readouterr().out
    assert "value iteration: expected return 62.39" in printed and "wants to go" in printed
