"""Four separate models, policy and critic on one trunk, one backbone of adapters: what each learns, needs and costs.

    python benchmarks/one_backbone.py [--seeds 4] [--only quickstart,smollm2] [--out runs/one-backbone]
    python benchmarks/one_backbone.py --only smollm2 --smollm2 MODEL --labelled sentiment.jsonl
    python benchmarks/one_backbone.py --quick

Two subjects. All sides of a seed have the same reward model: only PPO differs. In the quickstart's world its true
preference judges; adapters on its tiny model learn no reward, so the reward model there is a whole one. SmolLM2-135M
learns to continue openings of reviews positively; its reward model is adapters and a head, of labelled sentences
({"text", "label"}, one a line), and the held-out reward judges. `four` trains all weights of policy and critic apart;
`trunk` all weights of one model with a value head; `one` adapters and heads on frozen tensors, the reward model's too
where it is adapters; the other sides load it merged. Prints the tables of docs/speed.md and draws its figure. A run
that is complete is not run again; `one_backbone_report.py` prints and draws what there is so far.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from one_backbone_report import report

from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import (
    CheckpointSection,
    ComputeSection,
    DataSection,
    LogSection,
    LoraSection,
    OptimizerSection,
    SamplingSection,
)
from plaudit.data.write import write_records
from plaudit.demo import reviews
from plaudit.demo.quickstart import DATA, GOLD, SAMPLING, Scale, prepare
from plaudit.jobs.online import RLJob
from plaudit.jobs.reward import RewardJob
from plaudit.runs.files import merge_json
from plaudit.stages.online.rl import run_rl
from plaudit.stages.reward.train import run_reward

SMALL = Scale(prompts=600, iterations=40, prompts_per_iteration=48, eval_prompts=160)
QUICK = Scale(
    demonstrations=60, sft_epochs=1, comparisons=60, prompts=24, iterations=2, prompts_per_iteration=4,
    eval_prompts=8, hidden=32,
)  # fmt: skip
LABELLED = 1500
"""Sentences that the sentiment reward is trained on."""
OPENINGS = Path(__file__).resolve().parents[1] / "examples" / "review_openings.jsonl"
SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
SHARED: dict[str, Any] = {
    "log": LogSection(tensorboard=False, samples=0, progress=False),
    "compute": ComputeSection(precision="fp32", threads=1),
    "checkpoint": CheckpointSection(every=0),
    "overwrite": True,
}


COMPARISONS = 3000
"""Of the world's, for each reward model: once through."""


@dataclass(frozen=True, slots=True)
class Side:
    """How the roles are trained. Adapters want rates about ten times those of all weights."""

    name: str
    lora: LoraSection
    policy_lr: float
    critic: dict[str, Any]


APART = {"critic": "separate"}
TRUNK = {"critic": "trunk"}
ADAPTERS = LoraSection(rank=16, alpha=32)
WORLD_SIDES = (
    Side("four", LoraSection(), 2e-4, APART | {"critic_lr": 5e-4}),
    Side("trunk", LoraSection(), 2e-4, TRUNK | {"critic_lr": 5e-3}),
    Side("one", ADAPTERS, 1e-3, APART | {"critic_lr": 2e-3}),
)
SMOLLM2_SIDES = (
    Side("four", LoraSection(), 1e-4, APART | {"critic_lr": 1e-4}),
    Side("trunk", LoraSection(), 1e-4, TRUNK | {"critic_lr": 1e-3}),
    Side("one", ADAPTERS, 1e-3, APART | {"critic_lr": 1e-3}),
)


def world(base: Path, scale: Scale) -> None:
    """The SFT model, preferences and prompts that all runs in the quickstart's world share."""
    if (base / "data" / "prompts.jsonl").is_file():
        return
    prepare(base, 0, scale)
    train = reviews.prompts(scale.prompts, 0)
    heldout = reviews.prompts(scale.eval_prompts, 0, split="heldout")
    write_records(train + heldout, base / "data" / "prompts.jsonl", "plaudit")


def world_reward(base: Path, out: Path, seed: int) -> None:
    """The reward model of one seed."""
    run_reward(
        RewardJob(
            model=str(base / "sft" / "model"), dataset=str(base / "data" / "preferences.jsonl"), out=str(out),
            seed=seed, epochs=1, batch_size=16, optimizer=OptimizerSection(lr=1e-3),
            data=DATA.model_copy(update={"limit": COMPARISONS}), **SHARED,
        )
    )  # fmt: skip


def world_ppo(base: Path, reward: Path, scale: Scale, out: Path, side: Side, seed: int) -> None:
    """PPO of one seed."""
    run_rl(
        RLJob(
            policy=str(base / "sft" / "model"), reward=(str(reward / "model"),), gold=(GOLD,), seed=seed,
            dataset=str(base / "data" / "prompts.jsonl"), out=str(out / "ppo"), iterations=scale.iterations,
            prompts_per_iteration=scale.prompts_per_iteration, eval_prompts=scale.eval_prompts, eval_every=8,
            algorithm=PPO(kl_coef=0.05, epochs=2, minibatches=2, critic_warmup=2, **side.critic),
            optimizer=OptimizerSection(lr=side.policy_lr, schedule="linear", warmup_fraction=0.0), sampling=SAMPLING,
            data=DATA.model_copy(update={"eval_fraction": 0.25}), lora=side.lora, **SHARED,
        )
    )  # fmt: skip


def sentiment_reward(model: str, labelled: str, out: Path) -> None:
    """The log-odds of "positive", as adapter and head and as a whole model: the same for all sides."""
    run_reward(
        RewardJob(
            model=model, dataset=labelled, out=str(out), epochs=1, batch_size=16, lora=LoraSection(rank=8, alpha=16),
            optimizer=OptimizerSection(lr=2e-4), data=DataSection(max_length=64, limit=LABELLED), **SHARED,
        )
    )  # fmt: skip


def sentiment_ppo(model: str, reward: Path, quick: bool, out: Path, side: Side, seed: int) -> None:
    """A short form of configs/sentiment_ppo.toml."""
    run_rl(
        RLJob(
            policy=model, reward=(str(reward / "model"),), dataset=str(OPENINGS), out=str(out / "ppo"), seed=seed,
            iterations=2 if quick else 20, prompts_per_iteration=4 if quick else 24, eval_prompts=4 if quick else 45,
            eval_every=5, lora=side.lora,
            algorithm=PPO(
                kl_coef=0.045, epochs=1, minibatches=2, critic_init="sft", critic_warmup=0 if quick else 1,
                missing_eos_penalty=0.0, **side.critic,
            ),
            optimizer=OptimizerSection(lr=side.policy_lr, schedule="linear", warmup_fraction=0.0),
            sampling=SamplingSection(max_new_tokens=4 if quick else 8),
            data=DataSection(max_length=64, eval_fraction=0.3), **SHARED,
        )
    )  # fmt: skip


def timed(out: Path, name: str, run: Callable[[], None]) -> None:
    """``run`` in a forked process, its processor seconds and peak memory into timing.json; not if that is done.

    So the libraries are loaded once, and the peak is the run's own.
    """
    marker = out / f"{name}.done"
    if marker.is_file():
        return
    process = multiprocessing.get_context("fork").Process(target=_measured, args=(out, name, run))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name} in {out} failed")
    marker.touch()


def _measured(out: Path, name: str, run: Callable[[], None]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    before, cpu, wall = _peak(), time.process_time(), time.perf_counter()
    run()
    figures = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    merge_json(out / "timing.json", {name: figures | {"peak_gb": _peak(), "libraries_gb": before}})


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def quickstart(out: Path, seeds: Sequence[int], quick: bool) -> None:
    """All runs in the quickstart's world."""
    scale, base = QUICK if quick else SMALL, out / "world"
    world(base, scale)
    for seed in seeds:
        judged = out / f"seed-{seed}"
        timed(judged, "reward", functools.partial(world_reward, base, judged / "reward", seed))
        for side in WORLD_SIDES:
            here = out / f"{side.name}-{seed}"
            timed(here, "ppo", functools.partial(world_ppo, base, judged / "reward", scale, here, side, seed))


def smollm2(out: Path, seeds: Sequence[int], quick: bool, model: str, labelled: str) -> None:
    """All runs of the language model."""
    reward = out / "reward"
    timed(out, "reward", functools.partial(sentiment_reward, model, labelled, reward))
    for seed in seeds:
        for side in SMOLLM2_SIDES:
            here = out / f"{side.name}-{seed}"
            timed(here, "ppo", functools.partial(sentiment_ppo, model, reward, quick, here, side, seed))


def main() -> None:
    """Run what is missing, then tables and figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--only", default="quickstart,smollm2", help="subjects, by commas")
    parser.add_argument("--smollm2", default=SMOLLM2, help="hub name or directory")
    parser.add_argument("--labelled", default="stanfordnlp/imdb", help="sentences with a 0/1 label")
    parser.add_argument("--out", type=Path, default=Path("runs/one-backbone"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it works")
    given = parser.parse_args()
    subjects, seeds = given.only.split(","), range(given.seeds)
    if "quickstart" in subjects:
        quickstart(given.out / "quickstart", seeds, given.quick)
    if "smollm2" in subjects:
        smollm2(given.out / "smollm2", seeds, given.quick, given.smollm2, given.labelled)
    report(given.out, given.images)


if __name__ == "__main__":
    main()
