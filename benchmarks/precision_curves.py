"""bf16 products against fp32 ones: does PPO learn the same, how near are gradients, how far is the sampler?

    python benchmarks/precision_curves.py [--seeds 4] [--out runs/precision] [--smollm2 MODEL]
    python benchmarks/precision_curves.py --quick

In the quickstart's world, PPO against its true preference with the same seeds and settings in both precisions, measured
on held-out prompts: no reward model, whose faults would hide a difference. Then the gradient of a supervised batch,
layer by layer, at the start and at the end of those runs, and for --smollm2. Where bf16 is emulated this is slow and
just as telling: the products round alike. Writes precision.json into --out after each part; a run that is complete is
not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from one_backbone import QUICK, SHARED, SMALL, timed, world
from one_backbone_report import curve
from scipy.stats import t as student

from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.sft import SFT
from plaudit.backends.local.learner import LocalLearner
from plaudit.config.sections import ComputeSection, OptimizerSection
from plaudit.demo.quickstart import DATA, GOLD, SAMPLING, Scale
from plaudit.experience import Experience
from plaudit.jobs.online import RLJob
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.policy import Policy
from plaudit.runs.files import read_lines
from plaudit.stages.online.rl import run_rl

PRECISIONS = ("fp32", "bf16")


def learn(out: Path, seeds: Sequence[int], scale: Scale) -> None:
    """All runs that are missing."""
    world(out / "world", scale)
    for seed in seeds:
        for precision in PRECISIONS:
            here = out / f"{precision}-{seed}"
            timed(here, "ppo", functools.partial(ppo, out / "world", scale, here, precision, seed))
            save(out, {"scale": dataclasses.asdict(scale), "curves": curves(out)})


def ppo(base: Path, scale: Scale, out: Path, precision: str, seed: int) -> None:
    """One run."""
    shared = SHARED | {"compute": ComputeSection.model_validate({"precision": precision, "threads": 1})}
    run_rl(
        RLJob(
            policy=str(base / "sft" / "model"), reward=(GOLD,), gold=(GOLD,), seed=seed,
            dataset=str(base / "data" / "prompts.jsonl"), out=str(out / "ppo"), iterations=scale.iterations,
            prompts_per_iteration=scale.prompts_per_iteration, eval_prompts=scale.eval_prompts,
            eval_every=max(1, scale.iterations // 5),
            algorithm=PPO(kl_coef=0.02, epochs=2, minibatches=2, critic_warmup=1, critic_init="sft", critic_lr=5e-4),
            optimizer=OptimizerSection(lr=2e-4, schedule="linear", warmup_fraction=0.0), sampling=SAMPLING,
            data=DATA.model_copy(update={"eval_fraction": 0.25}), **shared,
        )
    )  # fmt: skip


def curves(out: Path) -> dict[str, Any]:
    """Gain in true preference by seed and precision, their paired difference, and the mismatch of the sampler."""
    runs = {p: sorted(m.parent for m in out.glob(f"{p}-*/ppo.done")) for p in PRECISIONS}
    found = {p: [list(curve(run, "gold").values()) for run in runs[p]] for p in PRECISIONS}
    gains = {p: [values[-1] - values[0] for values in found[p]] for p in PRECISIONS}
    pairs = list(zip(gains["bf16"], gains["fp32"], strict=False))
    mismatch = [
        line["rollout/logprob_diff_mean"] for run in runs["bf16"] for line in read_lines(run / "ppo" / "metrics.jsonl")
    ]
    rescored = [
        line["rollout/rescored_share"] for run in runs["bf16"] for line in read_lines(run / "ppo" / "metrics.jsonl")
    ]
    return {
        "gains": gains,
        "paired difference": interval([a - b for a, b in pairs]),
        "mismatch of bf16, nats a token": {
            "mean": statistics.fmean(mismatch) if mismatch else None,
            "largest iteration": max(mismatch, default=None),
        },
        "iterations of bf16 in which all rows were scored": statistics.fmean(rescored) if rescored else None,
        "curves": {p: [curve(run, "gold") for run in runs[p]] for p in PRECISIONS},
    }


def interval(differences: Sequence[float]) -> dict[str, float]:
    """The mean and Student's 95 % interval."""
    if len(differences) < 2:
        return {}
    half = student.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.fmean(differences)
    return {"mean": mean, "low": mean - half, "high": mean + half}


def likeness(model: str, rows: int, width: int) -> dict[str, float]:
    """The cosine of each parameter's gradient in bf16 to that in fp32: the smallest, and that of all together."""
    tokenizer = load_tokenizer(model)
    vocabulary = len(tokenizer)
    tokens = torch.randint(4, min(vocabulary, 4000), (rows, width), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    batch = SFT().weights(Experience(tokens, mask, mask & (torch.arange(width) >= width // 3)))
    gradients = []
    for precision in PRECISIONS:
        policy = Policy(load_causal_lm(model, tokenizer=tokenizer))
        learner = LocalLearner(
            policy, OptimizerSection(lr=1e-9, max_grad_norm=0.0), ComputeSection(precision=precision), total_steps=1
        )  # fmt: skip
        learner.optimizer.zero_grad = lambda **_: None  # type: ignore[method-assign]
        learner.update(batch, SFT().loss)
        gradients.append({n: p.grad.flatten() for n, p in learner.parameters.items() if p.grad is not None})
    exact, half = gradients
    each = {name: float(torch.cosine_similarity(exact[name], half[name], 0)) for name in exact}
    worst = min(each, key=lambda name: each[name])
    whole = torch.cosine_similarity(torch.cat(list(exact.values())), torch.cat(list(half.values())), 0)
    return {"smallest of a parameter": each[worst], "all together": float(whole), "parameters": len(each)}


def save(out: Path, part: dict[str, Any]) -> None:
    """Add a part to the results."""
    path = out / "precision.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(before | part, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Curves, then gradients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4)
    for size in ("--iterations", "--prompts-per-iteration", "--eval-prompts"):
        parser.add_argument(size, type=int, default=0, help="0: as in one_backbone.py")
    parser.add_argument("--smollm2", default="", help="a model whose gradients are compared too")
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    parser.add_argument("--quick", action="store_true", help="a minute, to see that it works")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {n: v for n in ("iterations", "prompts_per_iteration", "eval_prompts") if (v := getattr(given, n))}
    learn(given.out, range(given.seeds), dataclasses.replace(QUICK if given.quick else SMALL, **sizes))
    places = {"start": given.out / "world" / "sft" / "model"}
    places |= {f"end, {p}": given.out / f"{p}-0" / "ppo" / "model" for p in PRECISIONS}
    gradients = {name: likeness(str(path), 16, 48) for name, path in places.items()}
    save(given.out, {"gradients": gradients})
    if given.smollm2:
        save(given.out, {"gradients": gradients | {"SmolLM2": likeness(given.smollm2, 4, 32)}})
    print((given.out / "precision.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
