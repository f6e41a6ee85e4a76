"""A learning curve of every method, in a world whose optimum is known.

    python benchmarks/method_curves.py [--seeds 4] [--only ppo,grpo] [--out runs/method-curves] [--docs docs]

The world is that of `word_world.py`: 121 words, so that what a policy is worth is a sum and not an estimate. Online
methods run the loop that trains language models, on a table of logits. One picture a page of docs/algorithms goes to
docs/images/algorithms. Finished runs are kept in --out and not run again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import method_runs as runs
import word_world as world
from method_runs import Curve

from plaudit.algorithms.best_of_n import BestOfN
from plaudit.algorithms.dpo import DPO, IPO, ORPO, Hinge, SimPO
from plaudit.algorithms.grpo import CISPO, DAPO, GRPO, GSPO, DrGRPO
from plaudit.algorithms.kto import KTO
from plaudit.algorithms.online_dpo import OnlineDPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.ppo_presets import PPO_MAX_CODE, PPO_MAX_PAPER
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus
from plaudit.algorithms.reward_model import RewardModel
from plaudit.algorithms.rloo import RLOO

BETA = world.BETA
KL = {"kl_coef": BETA, "missing_eos_penalty": 0.0}
RAW = {"reward_scaling": "none", "reward_clip": 0.0, "value_clip": 0.0, "target_kl": 0.0}


@dataclass(frozen=True)
class Line:
    """One method in one panel: ``run(seed)`` gives its curve."""

    name: str
    run: Callable[[int], Curve]


@dataclass(frozen=True)
class Panel:
    """Methods that are compared with the same best value."""

    title: str
    across: str
    up: str
    best: float | Curve
    best_name: str
    lines: tuple[Line, ...]
    log: bool = False


def regularised(name: str, algorithm: Any, lr: float = 0.05) -> Line:
    return Line(name, partial(_online, algorithm, world.regularised, lr))


def unbound(name: str, algorithm: Any, lr: float = 0.05) -> Line:
    """A method without a KL: its aim is the reward alone."""
    return Line(name, partial(_online, algorithm, world.expected_reward, lr))


def _online(algorithm: Any, worth: Any, lr: float, seed: int) -> Curve:
    return runs.online(algorithm, seed, worth, lr)


def preferred(name: str, algorithm: Any, lr: float = 0.1, flipped: float = 0.0, reward: bool = False) -> Line:
    worth = world.expected_reward if reward else world.regularised
    return Line(name, lambda seed: runs.offline(algorithm, seed, worth, lr, flipped))


def scores(name: str, algorithm: Any, kind: str = "pairs", flipped: float = 0.0) -> Line:
    return Line(name, lambda seed: runs.reward_model(algorithm, seed, 0.1, kind, flipped))


RESPONSES = "responses sampled"
VALUE = f"expected reward - {BETA:g} KL"
WITH_KL = {"across": RESPONSES, "up": VALUE, "best": world.BEST_VALUE, "best_name": "closed form"}
WITHOUT = {"across": RESPONSES, "up": "expected reward", "best": 5.0, "best_name": "the best word"}
PLAIN = PPO(**KL, **RAW, critic_warmup=2)
PICTURES: dict[str, tuple[Panel, ...]] = {
    "reinforce": (
        Panel("REINFORCE and its baselines", **WITH_KL, lines=(
            regularised("none", REINFORCE(baseline="none", **KL)),
            regularised("mean", REINFORCE(**KL)),
            regularised("ema", REINFORCE(baseline="ema", **KL)),
            regularised("greedy", REINFORCE(baseline="greedy", **KL)),
            regularised("value", REINFORCE(baseline="value", critic_warmup=2, **KL)),
        )),
        Panel("REINFORCE++", **WITH_KL, lines=(
            regularised("reinforce_pp", REINFORCEPlusPlus(**KL)),
            regularised("4 minibatches", REINFORCEPlusPlus(minibatches=4, **KL), 0.02),
            regularised("baseline group", REINFORCEPlusPlus(baseline="group", group_size=8, **KL)),
        )),
    ),
    "rloo": (
        Panel("RLOO by the size of its groups", **WITH_KL, lines=tuple(
            regularised(f"group_size {g}", RLOO(group_size=g, **KL)) for g in (2, 4, 8)
        )),
    ),
    "ppo": (
        Panel("PPO", **WITH_KL, lines=(
            regularised("plain", PLAIN, 0.02),
            regularised("kl_in loss, k3", replace(PLAIN, kl_in="loss", kl_estimator="k3"), 0.02),
            regularised("gae_lambda 1", replace(PLAIN, gae_lambda=1.0), 0.02),
        )),
        Panel("Defaults and presets, which scale the reward", **WITH_KL, lines=(
            regularised("defaults", PPO(**KL, critic_warmup=2), 0.02),
            regularised("ppo_max_paper", replace(PPO_MAX_PAPER, kl_coef=BETA, critic_warmup=2), 0.02),
            regularised("ppo_max_code", replace(PPO_MAX_CODE, kl_coef=BETA), 0.02),
        )),
    ),
    "grpo": (
        Panel("With a KL", **WITH_KL, lines=(
            regularised("grpo", GRPO(kl_coef=BETA)),
            regularised("the same, naive k3", GRPO(kl_coef=BETA, kl_estimator="k3_naive")),
            regularised("grpo, scale group", GRPO(scale="group", kl_coef=BETA)),
            regularised("dr_grpo", DrGRPO(kl_coef=BETA)),
        )),
        Panel("Without", **WITHOUT, lines=(
            unbound("dr_grpo", DrGRPO()),
            unbound("dapo", DAPO(overlong_penalty=0.0)),
            unbound("gspo", GSPO()),
            unbound("cispo", CISPO(), 0.02),
        )),
    ),
    "dpo": (
        Panel("Against a reference", "pairs", VALUE, world.BEST_VALUE, "closed form", (
            preferred("dpo", DPO(beta=BETA)),
            preferred("ipo, sums", IPO(beta=BETA, average=False)),
            preferred("hinge", Hinge(beta=BETA)),
            preferred("kto", KTO(beta=BETA)),
        )),
        Panel("A fifth of the labels wrong", "pairs", VALUE, world.BEST_VALUE, "closed form", (
            preferred("dpo", DPO(beta=BETA), flipped=0.2),
            preferred("label_smoothing 0.2", DPO(beta=BETA, label_smoothing=0.2), flipped=0.2),
            preferred("the same, robust", DPO(beta=BETA, label_smoothing=0.2, robust=True), flipped=0.2),
        )),
        Panel("Without a reference", "pairs", "expected reward", 5.0, "the best word", (
            preferred("orpo", ORPO(ratio_coef=1.0), reward=True),
            preferred("simpo", SimPO(), reward=True),
        )),
        Panel("Online", **WITH_KL, lines=(
            regularised("online_dpo", OnlineDPO(beta=BETA)),
            regularised("best and worst of 8", OnlineDPO(beta=BETA, group_size=8)),
        )),
    ),
    "best_of_n": (
        Panel("Best of n", "n", "expected reward", runs.exact_best_of(), "exact", (
            Line("from 64 samples", runs.best_of),
        ), log=True),
        Panel("Rejection sampling", "rounds", "expected reward", 5.0, "the best word", (
            Line("start_from base", lambda seed: runs.rejection(BestOfN(missing_eos_penalty=0.0), seed, 0.2)),
            Line("latest", lambda seed: runs.rejection(
                BestOfN(missing_eos_penalty=0.0, start_from="latest"), seed, 0.2)),
            Line("latest, forgetting", lambda seed: runs.rejection(
                BestOfN(missing_eos_penalty=0.0, start_from="latest", accumulate=False), seed, 0.2)),
        )),
    ),
    "sft": (
        Panel("Imitating a known distribution", "demonstrations", "KL of it to the model", 0.0, "learned", (
            Line("sft", lambda seed: runs.imitation(seed, 0.1)),
        )),
    ),
    "reward_model": (
        Panel("What is asked", "responses read", "pairs ranked right", 1.0, "all", (
            scores("pairs", RewardModel()),
            scores("rankings of 4, pairs", RewardModel(), "rankings"),
            scores("plackett_luce", RewardModel(ranking_loss="plackett_luce"), "rankings"),
            scores("best", RewardModel(ranking_loss="best"), "rankings"),
            scores("ratings, regression", RewardModel(ratings="regression"), "ratings"),
        )),
        Panel("A fifth of the labels wrong", "responses read", "pairs ranked right", 1.0, "all", (
            scores("pairs", RewardModel(), flipped=0.2),
            scores("conservative", RewardModel(label_smoothing=0.2), flipped=0.2),
            scores("robust", RewardModel(label_smoothing=0.2, smoothing="robust"), flipped=0.2),
        )),
    ),
}  # fmt: skip


def curve_of(line: Line, file: Path, seed: int) -> Curve:
    """From the file, or made and written there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(line.run(seed)), encoding="utf-8")
    return [(x, y) for x, y in json.loads(file.read_text(encoding="utf-8"))]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--only", default="", help="pictures, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("runs/method-curves"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    given = parser.parse_args()
    from method_pictures import draw  # needs matplotlib, which the runs do not

    wanted = given.only.split(",") if given.only else list(PICTURES)
    for name in wanted:
        drawn = []
        for number, panel in enumerate(PICTURES[name]):
            found = {}
            for line in panel.lines:
                slug = "".join(c if c.isalnum() else "-" for c in line.name)
                files = [given.out / name / f"{number}-{slug}-{seed}.json" for seed in range(given.seeds)]
                found[line.name] = [curve_of(line, file, seed) for seed, file in enumerate(files)]
                end = [curve[-1][1] for curve in found[line.name]]
                print(f"{name:14}{panel.title:44}{line.name:24}" + " ".join(f"{x:.3f}" for x in end), flush=True)
            drawn.append((panel, found))
        draw(drawn, given.docs / "images" / "algorithms" / f"{name}.png")


if __name__ == "__main__":
    main()
