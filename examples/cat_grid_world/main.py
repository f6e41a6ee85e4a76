"""Six methods learn the cat's world, value iteration says how well they could have done, pictures show it.

python examples/cat_grid_world/main.py --pictures docs/images
python examples/cat_grid_world/main.py --seeds 1 --watch
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pictures
import torch
from episodes import play
from methods import METHODS
from train import Learning, Plan
from variance import Spread, spreads
from world import MOVES, World

HALF_WAY = 10
"""Iterations after which the spread of the gradient is measured a second time."""


def learn(world: World, plan: Plan, seeds: int) -> dict[str, list[Learning]]:
    """All methods, all seeds; a line for each method."""
    best = float(world.best()[0][world.start])
    print(f"value iteration: expected return {best:.2f} from the start\n")
    print(f"{'method':<16}{'mean':>8}{'worst':>8}{'of best':>9}{'  iterations to 95 %':<20}")
    runs: dict[str, list[Learning]] = {}
    for method in METHODS:
        runs[method.name] = [Learning(world, method, plan, seed).run() for seed in range(seeds)]
        ends = [run.curve[-1] for run in runs[method.name]]
        needed = [
            next((i for i, r in enumerate(run.curve) if r >= 0.95 * best), None) for run in runs[method.name]
        ]
        words = ", ".join("never" if n is None else str(n) for n in needed)
        print(f"{method.name:<16}{sum(ends) / seeds:>8.2f}{min(ends):>8.2f}{min(ends) / best:>9.1%}  {words}")
    return runs


def measure(world: World, episodes: int) -> dict[str, dict[str, Spread]]:
    """The spread of the gradient at the first policy, and at one that has learned something."""
    found = {}
    for title, iterations in (("at the start", 0), (f"after {HALF_WAY} iterations", HALF_WAY)):
        cat = Learning(world, METHODS[4], Plan(iterations=iterations), seed=0).run().cat
        found[title] = spreads(world, cat.preferences, METHODS[:5], episodes=episodes, seed=1)
        print(f"\nvariance of the gradient, {title}")
        for name, spread in found[title].items():
            print(f"{name:<16}{spread.variance:>10.0f} +- {spread.error:.0f}")
    return found


def draw(
    folder: Path, world: World, runs: dict[str, list[Learning]], found: dict[str, dict[str, Spread]]
) -> None:
    """The three pictures of docs/algorithms/cat.md."""
    values, policy = world.best()
    cat, plain = runs["PPO"][0].cat, runs["full return"][0].cat
    learned = [
        ("value iteration", policy, values),
        ("PPO, with its own critic", cat.policy.detach(), cat.value.detach()),
        ("REINFORCE, exact values of it", plain.policy.detach(), world.values(plain.policy.detach())),
    ]
    pictures.save(pictures.grids(world, learned), folder / "cat_policy.png")
    curves = {name: [run.curve for run in each] for name, each in runs.items()}
    pictures.save(pictures.curves(world, curves), folder / "cat_curves.png")
    pictures.save(pictures.bars(found), folder / "cat_variance.png")


def watch(world: World, learning: Learning, pause: float) -> None:
    """One episode in the terminal."""
    played = play(
        world, learning.cat.policy.detach(), 1, learning.plan.steps, torch.Generator().manual_seed(1)
    )
    total = 0.0
    for t, state in enumerate(played.states[0].tolist()):
        cells = [" @" if s == state else f" {world.cells[s]}" for s in range(len(world.cells))]
        rows = ["".join(cells[i : i + world.width]) for i in range(0, len(cells), world.width)]
        move = list(MOVES)[int(played.batch.tokens[0, t])]
        total += float(played.rewards[0, t])
        print("\n" + "\n".join(rows) + f"\nwants to go {move}; rewards so far {total:+.0f}")
        time.sleep(pause)


def main(arguments: list[str] | None = None) -> dict[str, list[Learning]]:
    """Learn, measure, draw, watch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4, help="cats per method")
    parser.add_argument("--iterations", type=int, default=Plan().iterations, help="batches of episodes")
    parser.add_argument("--drunk", type=float, default=World().drunk, help="chance that a step goes anywhere")
    parser.add_argument("--episodes", type=int, default=8000, help="to measure variances with")
    parser.add_argument("--pictures", type=Path, help="folder to draw into")
    parser.add_argument("--watch", action="store_true", help="show an episode of a PPO cat")
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between the steps to watch")
    given = parser.parse_args(arguments)
    world = World(drunk=given.drunk)
    runs = learn(world, Plan(iterations=given.iterations), given.seeds)
    found = measure(world, given.episodes)
    if given.pictures:
        draw(given.pictures, world, runs, found)
    if given.watch:
        watch(world, runs["PPO"][0], given.pause)
    return runs


if __name__ == "__main__":
    main()
