"""Where each method ends, and how far from there a run does: docs/algorithms/limits.md, its figure and its figures.

    python benchmarks/limits.py [--only grpo,rloo] [--page]

Three seeds of every method in the world of `word_world.py`, whose best policy is known. The results are kept in
docs/algorithms/limits.json; --page writes the page and the picture from them and runs nothing. About ten minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import exact_limits as exact
import method_runs as runs
import word_world as world
from limits_page import draw, page
from torch import Tensor

from plaudit.algorithms.best_of_n import BestOfN
from plaudit.algorithms.dpo import DPO
from plaudit.algorithms.grpo import DAPO, GRPO, DrGRPO, GRPOPaper
from plaudit.algorithms.kto import KTO
from plaudit.algorithms.online_dpo import OnlineDPO
from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.reinforce import REINFORCE
from plaudit.algorithms.reinforce_pp import REINFORCEPlusPlus
from plaudit.algorithms.rloo import RLOO

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS = DOCS / "algorithms" / "limits.json"
SEEDS, RESPONSES, ITERATIONS, LR = 3, 128, 150, 0.1
BETA = world.BETA
KL = {"kl_coef": BETA, "missing_eos_penalty": 0.0}
IN_FORCE = "objective/kl_coef_in_force"


@dataclass
class End:
    """The policy at the end of a run, and the coefficient that was in force."""

    policy: Tensor = world.REFERENCE
    in_force: float | None = None

    def see(self, table: world.Table) -> float:
        self.policy = world.law(table)
        return 0.0

    def hear(self, metrics: dict[str, float]) -> None:
        self.in_force = metrics.get(IN_FORCE, self.in_force)


Limit = Callable[[float | None], Tensor]
"""From the coefficient in force to the policy that the method tends to."""


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    settings: str
    """What differs from the defaults, the weight of the KL apart."""
    tends_to: str
    run: Callable[[int], End]
    limit: Limit | None


def online(name: str, settings: str, tends_to: str, limit: Limit | None, algorithm: Any) -> Method:
    def run(seed: int) -> End:
        end = End()
        runs.online(algorithm, seed, end.see, LR, RESPONSES, ITERATIONS, end.hear)
        return end

    return Method(name, settings, tends_to, run, limit)


def offline(
    name: str, settings: str, tends_to: str, limit: Limit | None, algorithm: Any, pairs: int = runs.PAIRS
) -> Method:
    def run(seed: int) -> End:
        end = End()
        runs.offline(algorithm, seed, end.see, LR, pairs=pairs)
        return end

    return Method(name, settings, tends_to, run, limit)


def imitated(seed: int) -> End:
    end = End()
    runs.rejection(BestOfN(missing_eos_penalty=0.0), seed, LR, rounds=1, prompts=2000, worth=end.see)
    return end


def the_optimum(in_force: float | None) -> Tensor:
    return exact.optimum(BETA)


def in_units_of_the_reward(in_force: float | None) -> Tensor:
    assert in_force is not None
    return exact.optimum(in_force)


def at_each_place(in_force: float | None) -> Tensor:
    assert in_force is not None
    return exact.place_by_place(in_force)


RAW = {"reward_scaling": "none", "value_clip": 0.0}
OPTIMAL, OTHER = "the optimum", "the optimum of the coefficient in force"
PLACES = "the KL at each place, of that coefficient"
METHODS = (
    online("REINFORCE", "", OPTIMAL, the_optimum, REINFORCE(**KL)),
    online("REINFORCE++", "", OPTIMAL, the_optimum, REINFORCEPlusPlus(**KL)),
    online("REINFORCE++", "baseline group, group_size 8", PLACES, at_each_place,
           REINFORCEPlusPlus(baseline="group", group_size=8, **KL)),
    online("RLOO", "", OPTIMAL, the_optimum, RLOO(**KL)),
    online("PPO", "", OTHER, in_units_of_the_reward, PPO(**KL)),
    online("PPO", "reward_scaling none, value_clip 0", OPTIMAL, the_optimum, PPO(**RAW, **KL)),
    online("PPO", "the same, kl_in loss, kl_estimator k3", PLACES, at_each_place,
           PPO(kl_in="loss", kl_estimator="k3", **RAW, **KL)),
    online("GRPO", "", PLACES, at_each_place, GRPO(**KL)),
    online("Dr. GRPO", "", PLACES, at_each_place, DrGRPO(**KL)),
    online("GRPO", "scale group", "its exact gradient", lambda _: exact.grpo(BETA, "group"), GRPO(scale="group", **KL)),
    online("GRPO, the paper's form", "", "its exact gradient", lambda _: exact.grpo(BETA, "group", paper=True),
           GRPOPaper(**KL)),
    online("DAPO", "overlong_buffer 0", "its exact gradient", lambda _: exact.grpo(BETA, "group", unequal_only=True),
           DAPO(overlong_buffer=0.0, **KL)),
    online("online DPO", "", "the best word, ever more slowly", lambda _: exact.best_word(),
           OnlineDPO(beta=BETA, missing_eos_penalty=0.0)),
    online("online DPO", "label_smoothing score_gap", OPTIMAL, the_optimum,
           OnlineDPO(beta=BETA, label_smoothing="score_gap", missing_eos_penalty=0.0)),
    offline("DPO", "5000 pairs", "the optimum, with endless pairs", the_optimum, DPO(beta=BETA)),
    offline("DPO", "50 000 pairs", "the same", the_optimum, DPO(beta=BETA), 50_000),
    offline("KTO", "the same pairs as thumbs", "no finite optimum", None, KTO(beta=BETA)),
    Method("best-of-n", "one round of 8", "the best of 8 words", imitated, lambda _: exact.best_of(8)),
)  # fmt: skip


def measured(method: Method) -> dict[str, Any]:
    """The row of a method: distances in total variation, one number a seed."""
    start, best = time.perf_counter(), exact.optimum(BETA)
    ends = [method.run(seed) for seed in range(SEEDS)]
    limits = [method.limit(end.in_force) for end in ends] if method.limit else []
    kl = [float((p * (p.clamp(min=1e-300) / world.REFERENCE).log()).sum()) for p in (end.policy for end in ends)]
    row = {
        "name": method.name,
        "settings": method.settings,
        "tends_to": method.tends_to,
        "in_force": [end.in_force for end in ends],
        "limit_to_optimum": [exact.distance(limit, best) for limit in limits],
        "to_limit": [exact.distance(end.policy, limit) for end, limit in zip(ends, limits, strict=False)],
        "to_optimum": [exact.distance(end.policy, best) for end in ends],
        "kl": kl,
        "largest": [float(end.policy.max()) for end in ends],
    }
    print(f"{method.name:24}{method.settings:40}{time.perf_counter() - start:6.0f} s", row["to_limit"], flush=True)
    return {name: _rounded(value) for name, value in row.items()}


def _rounded(value: Any) -> Any:
    return [None if x is None else round(x, 4) for x in value] if isinstance(value, list) else value


def facts() -> dict[str, Any]:
    """What the page says of the world and of the runs."""
    best = exact.optimum(BETA)
    # Divided by a deviation, a tenth of a reward is the same reward: what changes is the weight of the KL.
    tenth = exact.grpo(BETA / 10, "group")
    return {
        "tenth_to_optimum": round(exact.distance(tenth, best), 4), "tenth_best_word": round(float(tenth.max()), 4),
        "beta": BETA, "seeds": SEEDS, "responses": RESPONSES, "iterations": ITERATIONS, "lr": LR,
        "start_to_optimum": round(exact.distance(world.REFERENCE, best), 4),
        "best_word": round(float(best.max()), 4), "one_in": round(1 / float(world.REFERENCE[best.argmax()])),
        "optimum_kl": round(float((best * (best / world.REFERENCE).log()).sum()), 4),
        "places_to_optimum": round(exact.distance(exact.place_by_place(BETA), best), 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="methods, separated by commas; the others keep their results")
    parser.add_argument("--page", action="store_true", help="run nothing")
    given = parser.parse_args()
    old = json.loads(RESULTS.read_text(encoding="utf-8"))["methods"] if RESULTS.exists() else []
    known = {(row["name"], row["settings"]): row for row in old}
    wanted = {name.strip().lower() for name in given.only.split(",") if name}
    rows = []
    for method in METHODS:
        chosen = not given.page and (not wanted or method.name.lower() in wanted)
        key = (method.name, method.settings)
        if chosen or key in known:
            rows.append(measured(method) if chosen else known[key])
    world_facts = json.loads(RESULTS.read_text(encoding="utf-8"))["world"] if given.page else facts()
    results = {"world": world_facts, "methods": rows}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (DOCS / "algorithms" / "limits.md").write_text(page(results), encoding="utf-8")
    draw(results, DOCS / "images" / "algorithms" / "limits.png")


if __name__ == "__main__":
    main()
