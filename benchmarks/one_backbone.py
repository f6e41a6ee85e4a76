"""One backbone beside four separate models: what adapters and heads on one frozen base learn, need and cost.

    python benchmarks/one_backbone.py [--seeds 4] [--out runs/one-backbone] [--images docs/images] [--quick]

One SFT model of the quickstart's world. Then for each seed and side a reward model and PPO on it, with the same
prompts, preferences and iterations: `four` trains all weights of policy, critic and reward model; `one` trains
adapters and heads on the SFT model's frozen tensors. The world's true preference judges held-out responses. Prints
the table of docs/speed.md and draws its figure. A run that is complete is not run again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from plaudit.algorithms.ppo import PPO
from plaudit.config.sections import LogSection, LoraSection, OptimizerSection
from plaudit.data import reviews
from plaudit.data.write import write_records
from plaudit.stages.quickstart import DATA, GOLD, SAMPLING, Scale, common, prepare
from plaudit.stages.reward_model import RewardJob, run_reward
from plaudit.stages.rl import run_rl
from plaudit.stages.rl_job import RLJob
from plaudit.tracking.files import merge_json, read_json, read_lines

ROLES = ("policy", "reference", "critic", "reward")
SMALL = Scale(prompts=400, iterations=16, prompts_per_iteration=32, eval_prompts=128)
QUICK = Scale(
    demonstrations=60, sft_epochs=1, comparisons=60, prompts=24, iterations=2, prompts_per_iteration=4,
    eval_prompts=8, hidden=32,
)  # fmt: skip
COMPARISONS = 1000
"""Of the world's, for each reward model: once through."""
QUIET = LogSection(tensorboard=False, samples=0, progress=False)


@dataclass(frozen=True, slots=True)
class Side:
    """How the roles are trained. Adapters want rates about ten times those of all weights."""

    name: str
    label: str
    lora: LoraSection
    reward_lr: float
    policy_lr: float
    critic_lr: float


SIDES = (
    Side("four", "four separate models", LoraSection(), 1e-3, 2e-4, 5e-4),
    Side("one", "one backbone (LoRA, rank 16)", LoraSection(rank=16, alpha=32), 5e-3, 2e-3, 3e-3),
)


def world(out: Path, scale: Scale) -> None:
    """The SFT model, preferences and prompts that all runs share."""
    if (out / "data" / "prompts.jsonl").is_file():
        return
    prepare(out, 0, scale)
    train, heldout = (
        reviews.prompts(scale.prompts, 0),
        reviews.prompts(scale.eval_prompts, 0, split="heldout"),
    )
    write_records(train + heldout, out / "data" / "prompts.jsonl", "plaudit")


def run(base: Path, out: Path, side: Side, seed: int, scale: Scale) -> None:
    """Reward model and PPO of one seed; seconds of one processor and peak memory into timing.json."""
    torch.set_num_threads(1)
    settings: dict[str, Any] = common(seed) | {"lora": side.lora, "log": QUIET, "overwrite": True}
    began, wall = time.process_time(), time.perf_counter()
    reward = run_reward(
        RewardJob(
            model=str(base / "sft" / "model"), dataset=str(base / "data" / "preferences.jsonl"),
            out=str(out / "reward"), epochs=1, batch_size=16, optimizer=OptimizerSection(lr=side.reward_lr),
            **(settings | {"data": DATA.model_copy(update={"limit": COMPARISONS})}),
        )
    )  # fmt: skip
    trained = time.process_time()
    run_rl(
        RLJob(
            policy=str(base / "sft" / "model"), reward=(str(reward / "model"),), gold=(GOLD,),
            dataset=str(base / "data" / "prompts.jsonl"), out=str(out / "ppo"), iterations=scale.iterations,
            prompts_per_iteration=scale.prompts_per_iteration, eval_prompts=scale.eval_prompts, eval_every=4,
            algorithm=PPO(kl_coef=0.05, critic_lr=side.critic_lr, epochs=2, minibatches=2, critic_warmup=2),
            optimizer=OptimizerSection(lr=side.policy_lr, schedule="linear", warmup_fraction=0.0), sampling=SAMPLING,
            **(settings | {"data": DATA.model_copy(update={"eval_fraction": 0.25})}),
        )
    )  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    figures = {"reward_s": trained - began, "ppo_s": time.process_time() - trained, "peak_gb": peak}
    merge_json(out / "timing.json", figures | {"wall_s": time.perf_counter() - wall})


def in_a_process(*arguments: Any) -> None:
    """`run` in a forked process: the libraries are loaded once, and the peak is the run's own."""
    process = multiprocessing.get_context("fork").Process(target=run, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"run {arguments[1]} failed")


def curve(out: Path, name: str = "gold") -> dict[int, float]:
    """The mean over held-out responses at each iteration that was evaluated; gold is the true preference."""
    found: dict[int, list[float]] = {}
    for line in read_lines(out / "ppo" / "evaluation.jsonl"):
        found.setdefault(line["step"], []).append(line[name])
    return {step: statistics.fmean(values) for step, values in found.items()}


def row(side: Side, runs: list[Path]) -> str:
    """A line of the table: means over the seeds, and the smallest and largest gain."""
    curves = [list(curve(out).values()) for out in runs]
    gains = [values[-1] - values[0] for values in curves]
    kl = statistics.fmean(list(curve(out, "kl").values())[-1] for out in runs)
    memory = read_json(runs[0] / "ppo" / "summary.json")
    sizes = [1000 * memory[f"memory/{role}"] for role in ROLES]
    timings = [read_json(out / "timing.json") for out in runs]
    peak, reward_s, ppo_s = (
        statistics.fmean(t[k] for t in timings) for k in ("peak_gb", "reward_s", "ppo_s")
    )
    gain = f"{statistics.fmean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})"
    cells = [side.label, gain, f"{kl:.1f}", *(f"{size:.2f}" for size in (*sizes, sum(sizes)))]
    return f"| {' | '.join([*cells, f'{peak:.3f}', f'{reward_s:.0f} + {ppo_s:.0f}'])} |"


def draw(path: Path, runs: dict[str, list[Path]]) -> None:
    """Every seed's curve, thin, and the mean of each side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), dpi=120)
    for side, colour in zip(SIDES, ("#4878a8", "#d1603d"), strict=True):
        curves = [curve(out) for out in runs[side.name]]
        for one in curves:
            axes.plot(list(one), list(one.values()), color=colour, alpha=0.3, linewidth=1)
        means = [statistics.fmean(values) for values in zip(*(c.values() for c in curves), strict=True)]
        axes.plot(list(curves[0]), means, color=colour, linewidth=2.2, label=side.label)
    axes.set_xlabel("PPO iteration")
    axes.set_ylabel("true preference, held-out prompts")
    axes.set_title(f"One backbone and four separate models, {len(runs['one'])} seeds")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    path.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path / "one-backbone.png")


def main() -> None:
    """Run what is missing, then table and figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/one-backbone"))
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it works")
    given = parser.parse_args()
    scale, base = QUICK if given.quick else SMALL, given.out / "world"
    torch.set_num_threads(1)
    world(base, scale)
    runs: dict[str, list[Path]] = {side.name: [] for side in SIDES}
    for seed in range(given.seeds):
        for side in SIDES:
            out = given.out / f"{side.name}-{seed}"
            if not (out / "timing.json").is_file():
                in_a_process(base, out, side, seed, scale)
            runs[side.name].append(out)
    roles = " | ".join(f"{role}, MB" for role in ROLES)
    print(f"| | gain in true preference | KL, nats | {roles} | sum, MB | peak GB | CPU s |")
    print("|---|" + "---|" * 9)
    print("\n".join(row(side, runs[side.name]) for side in SIDES))
    draw(given.images, runs)


if __name__ == "__main__":
    main()
