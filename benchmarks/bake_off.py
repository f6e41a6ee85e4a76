"""Every method on one small world under one protocol: what a nat of KL buys, in true preference.

    python benchmarks/bake_off.py [--seeds 4] [--out runs/bake-off] [--docs docs]

For each seed the quickstart's SFT model and reward model; then every method of `bake_off_methods.py` from that
model, on that reward (DPO on the preferences it was made from), with the same prompts and the same number of
responses. Every few steps the policy answers the same held-out prompts, the world's true preference judges, and the
exact KL to the SFT model is added up along the responses. Writes the tables of docs/algorithms/bake-off.md and its
figure. What is done is not done again, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import bake_off_page as page
import torch
from bake_off_methods import DPO_STEPS_BETWEEN, ITERATIONS, ITERATIONS_BETWEEN, METHODS, Method
from safetensors.torch import load_file
from torch import Tensor

from plaudit.backends.local.learner import LocalScorer
from plaudit.backends.local.models import load_policy, load_reference
from plaudit.backends.local.rewards import build_reward
from plaudit.config.algorithm import with_algorithm
from plaudit.config.sections import CheckpointSection, LogSection, LoraSection, OptimizerSection
from plaudit.data.chat import ChatFormat
from plaudit.data.collate import collate_rollouts
from plaudit.data.write import write_records
from plaudit.demo import reviews
from plaudit.demo.quickstart import COMPUTE, DATA, GOLD, SAMPLING, Scale, prepare
from plaudit.evaluation.kinds import card
from plaudit.generation.native import NativeGenerator
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.registry import command_for
from plaudit.jobs.reward_texts import tables_of
from plaudit.models.exact_kl import ExactKL
from plaudit.rollouts.collect import scored
from plaudit.runs.files import merge_json, read_json
from plaudit.runtime import TokenPrompt
from plaudit.stages.best_of_n.answer import run_best_of_n
from plaudit.stages.online.rl import run_rl
from plaudit.stages.preference.dpo import run_dpo

RESPONSES = 64
"""Of one iteration, whatever the size of a group."""
TRAIN_PROMPTS, HELDOUT_PROMPTS = 600, 128
QUIET = LogSection(tensorboard=False, samples=0, progress=False)


class World:
    """What all methods of one seed share: SFT model, reward model, preferences, prompts, and the judge of the curve."""

    def __init__(self, out: Path, seed: int) -> None:
        self.out, self.seed = out, seed
        self.sft, self.reward = out / "sft" / "model", out / "reward" / "model"
        if not self.reward.is_dir():
            shutil.rmtree(out, ignore_errors=True)
            prepare(out, seed, Scale())
        self.preferences = out / "data" / "preferences.jsonl"
        self.prompts = out / "data" / "train-prompts.jsonl"
        self.heldout = out / "data" / "heldout-prompts.jsonl"
        write_records(reviews.prompts(TRAIN_PROMPTS, seed), self.prompts, "plaudit")
        records = reviews.prompts(HELDOUT_PROMPTS, seed, split="heldout")
        write_records(records, self.heldout, "plaudit")
        tokenizer, self.policy = load_policy(str(self.sft), LoraSection(), COMPUTE, seed=seed)
        self.exact = LocalScorer(ExactKL(self.policy, load_reference(self.policy)), COMPUTE)
        chat = ChatFormat(tokenizer, "auto")
        self.generator = NativeGenerator(self.policy.lm, tokenizer, chat.end_ids)
        self.tokens = [TokenPrompt(p, tuple(chat.prompt_ids(p.content))) for p in records]
        self.judge = build_reward(tables_of(str(self.reward)), tokenizer, COMPUTE, where="reward")

    @torch.no_grad()
    def point(self, step: int, weights: dict[str, Tensor]) -> dict[str, float]:
        """One point of a curve: a response to each held-out prompt, always with the same random numbers."""
        for name, parameter in self.policy.named_parameters():
            parameter.copy_(weights[name])
        rollouts = self.generator.generate(self.tokens, 1, SAMPLING, seed=self.seed, iteration=-1)
        kl = self.exact.read(collate_rollouts(rollouts, pad_id=0), "full_kl")[0].sum(-1)
        proxy = [r.reward for r in scored(self.judge, rollouts) if r.reward is not None]
        return {
            "step": step,
            "kl": float(kl.mean()),
            "gold": statistics.fmean(reviews.true_score(str(r.prompt.content), r.response) for r in rollouts),
            "reward": statistics.fmean(proxy),
            "length": statistics.fmean(len(r.response_ids) for r in rollouts),
            "distinct": len({r.response for r in rollouts}) / len(rollouts),
        }

    def weights(self, model: Path) -> dict[str, Tensor]:
        """The weights of a saved model, by the names that a checkpoint gives them."""
        return dict(load_policy(str(model), LoraSection(), COMPUTE, seed=0)[1].named_parameters())

    def common(self, out: Path, every: int) -> dict[str, Any]:
        """Settings that every run has, with checkpoints for the points of its curve."""
        return {
            "seed": self.seed, "compute": COMPUTE, "sampling": SAMPLING, "log": QUIET, "out": str(out),
            "checkpoint": CheckpointSection(every=every, keep=100),
        }  # fmt: skip


def online(world: World, method: Method, out: Path) -> int:
    """Train on the reward model; returns the last step."""
    group = method.algorithm.group_size
    job = with_algorithm(command_for(method.algorithm).job, method.algorithm)(
        policy=str(world.sft), reward=(str(world.reward),), dataset=str(world.prompts), algorithm=method.algorithm,
        iterations=ITERATIONS, prompts_per_iteration=RESPONSES // group, eval_prompts=16, eval_every=ITERATIONS,
        optimizer=OptimizerSection(lr=method.lr, schedule="constant", warmup_fraction=0.0), kl_limit=0,
        data=DATA.model_copy(update={"eval_fraction": 0.05}), **world.common(out, ITERATIONS_BETWEEN),
    )  # fmt: skip
    run_rl(job)
    return ITERATIONS


def offline(world: World, method: Method, out: Path) -> int:
    """Train on the preferences, once through; returns the last step."""
    job = DPOJob(
        model=str(world.sft), dataset=str(world.preferences), algorithm=method.algorithm, batch_size=32,
        optimizer=OptimizerSection(lr=method.lr, schedule="constant", warmup_fraction=0.1), data=DATA,
        eval_every=10_000, **world.common(out, DPO_STEPS_BETWEEN),
    )  # fmt: skip
    run_dpo(job)
    return int(-(-read_json(out / "summary.json")["train_rows"] // 32))


def curve(world: World, method: Method, out: Path) -> list[dict[str, float]]:
    """Train, then measure every checkpoint and the end; the checkpoints are deleted."""
    last = (offline if method.name == "DPO" else online)(world, method, out)
    if read_json(out / "summary.json").get("model_step", last) != last:
        raise RuntimeError(f"{method.name} ended below its start and was rolled back: see {out}")
    points = []
    for path in sorted((out / "checkpoints").glob("step-*")):
        saved = load_file(path / "policy.safetensors")
        inside = {k.removeprefix("weight/"): v for k, v in saved.items() if k.startswith("weight/")}
        points.append(world.point(int(path.name.removeprefix("step-")), inside))
    points.append(world.point(last, world.weights(out / "model")))
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return points


def best_of_n(world: World, method: Method, out: Path) -> list[dict[str, float]]:
    """n of the SFT model's responses, for n = 1, 2, 4 ... from one set of samples; the KL is its bound."""
    job = BestOfNJob(
        policy=str(world.sft), reward=(str(world.reward),), gold=(GOLD,), dataset=str(world.heldout),
        algorithm=method.algorithm, data=DATA, **world.common(out, 0),
    )  # fmt: skip
    run_best_of_n(job)
    found = card(out)["curve"]
    return [{"step": p["n"], "kl": p["kl_bound"], "gold": p["gold"], "reward": p["reward"]} for p in found]


def measured(out: Path, seed: int, methods: list[Method], *, run: bool = True) -> dict[str, dict[str, Any]]:
    """Curves of the methods of one seed, those on the disk taken from there; without ``run`` no others."""
    world: World | None = None
    curves = {}
    for method in methods:
        place = out / f"seed{seed}" / method.slug
        if not run and not (place / "curve.json").is_file():
            continue
        if not (place / "curve.json").is_file():
            world = world or World(out / f"seed{seed}" / "world", seed)
            shutil.rmtree(place, ignore_errors=True)
            began = time.process_time()
            points = (best_of_n if method.name == "best-of-n" else curve)(world, method, place)
            if method.name != "best-of-n":
                points = [world.point(0, world.weights(world.sft)), *points]
            merge_json(
                place / "curve.json",
                {"points": points, "seconds": time.process_time() - began, "settings": method.settings},
            )
            print(f"seed {seed} {method.name}: {json.dumps(points[-1])}", flush=True)
        curves[method.name] = read_json(place / "curve.json")
    return curves


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/bake-off"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--only", nargs="*", default=[], help="names of methods, whose tables are printed")
    parser.add_argument("--tables", action="store_true", help="run nothing, show what is there")
    given = parser.parse_args()
    methods = [m for m in METHODS if not given.only or m.name in given.only]
    found = [measured(given.out, seed, methods, run=not given.tables) for seed in range(given.seeds)]
    tables = page.tables(methods, found)
    print(tables)
    if not given.only:
        page.insert(given.docs / "algorithms" / "bake-off.md", tables)
        page.draw(methods, found, given.docs / "images" / "bake_off.png")


if __name__ == "__main__":
    main()
