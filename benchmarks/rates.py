"""Does every command learn with its default settings? In the quickstart's world, whose true score is known.

python benchmarks/rates.py --keep DIR                           all commands, seeds 0 to 7 (about an hour of one core)
python benchmarks/rates.py --keep DIR --methods dpo --lr 5e-7 --seeds 0,1      another rate

Each command is given its models and data, and nothing else: no setting differs from its default but the seed, and a
directory for the results. Gold is the true score of responses to held-out prompts, after less before, prompt by prompt;
of a reward model it is the accuracy on held-out pairs less one half. Lines are added to DIR/rates.jsonl, and runs that
are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from worlds import base_of

from plaudit.backends.local.offline import load_generator
from plaudit.config.sections import ComputeSection, LogSection, OptimizerSection, SamplingSection
from plaudit.demo import reviews
from plaudit.demo.quickstart import GOLD
from plaudit.errors import Ended
from plaudit.evaluation.choice import difference, means_of
from plaudit.evaluation.kinds import card
from plaudit.jobs.best_of_n import BestOfNJob
from plaudit.jobs.online import GRPOJob, OnlineDPOJob, ReinforceJob, RLJob, RLOOJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.sft import SFTJob
from plaudit.records import Prompt
from plaudit.runs.files import read_json, read_lines
from plaudit.runtime import TokenPrompt
from plaudit.stages import stage_of
from plaudit.statistics.intervals import Estimate

ASKED = 64
"""Prompts of no stage on which models of offline commands are compared with their start."""
JOBS: dict[str, Any] = {
    "sft": SFTJob, "reward": RewardJob, "dpo": DPOJob, "reinforce": ReinforceJob, "ppo": RLJob, "rloo": RLOOJob,
    "grpo": GRPOJob, "online-dpo": OnlineDPOJob, "best-of-n": BestOfNJob,
}  # fmt: skip
QUIET = {"log": LogSection(trackers=()), "compute": ComputeSection(threads=1)}


def given_to(method: str, base: Path) -> dict[str, Any]:
    """The models and the data of a command."""
    sft, data = str(base / "sft" / "model"), base / "data"
    offline = {
        "sft": {"model": str(base / "start"), "dataset": str(data / "demonstrations.jsonl")},
        "reward": {"model": sft, "dataset": str(data / "preferences.jsonl")},
        "dpo": {"model": sft, "dataset": str(data / "preferences.jsonl")},
    }
    online = {
        "policy": sft, "reward": (str(base / "reward" / "model"),), "gold": (GOLD,),
        "dataset": str(data / "prompts.jsonl"),
    }  # fmt: skip
    return offline.get(method, online)


def true_scores(model: Path, prompts: Sequence[Prompt], seed: int) -> dict[str, float]:
    """Prompt id -> mean true score of two responses of a model."""
    generator, chat = load_generator(str(model))
    asked = [TokenPrompt(prompt, tuple(chat.prompt_ids(prompt.content))) for prompt in prompts]
    rows = generator.generate(asked, 2, SamplingSection(max_new_tokens=48), seed=seed, iteration=1)
    scores = [
        {"prompt_id": r.prompt.id, "gold": reviews.true_score(str(r.prompt.content), r.response)} for r in rows
    ]
    return means_of(scores, "gold")


def gain_of(method: str, run: Path, base: Path, seed: int) -> Estimate:
    """What a run gained, with its 95 % interval over prompts."""
    if method == "reward":
        found = card(run)
        low, high = found["accuracy_ci"]
        return Estimate(found["accuracy"] - 0.5, low - 0.5, high - 0.5, found["heldout_pairs"])
    if method in ("sft", "dpo"):
        start = base / "start" if method == "sft" else base / "sft" / "model"
        prompts = reviews.prompts(ASKED, seed + 5000)
        return difference(true_scores(start, prompts, seed), true_scores(run / "model", prompts, seed))
    if method == "best-of-n":
        found = card(run)
        return Estimate(found["gold_gain"], *found["gold_gain_ci"], found["prompts"])
    final = [row for row in read_lines(run / "evaluation.jsonl") if row["set"] == "final"]
    kept = read_json(run / "summary.json")["model_step"]
    before, after = (means_of([row for row in final if row["step"] == step], "gold") for step in (0, kept))
    return difference(before, after)


def made(method: str, seed: int, keep: Path, changed: dict[str, Any]) -> dict[str, Any]:
    """One run and what it gained."""
    base, out = base_of(keep, seed), keep / f"rates-run-{method}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    settings = dict(changed)
    if rate := settings.pop("lr", None):
        default: OptimizerSection = JOBS[method].model_fields["optimizer"].default
        settings["optimizer"] = default.model_copy(update={"lr": rate})
    job = JOBS[method](out=str(out), seed=seed, **QUIET, **given_to(method, base), **settings)
    began, how = time.perf_counter(), "finished"
    try:
        stage_of(type(job))(job)
    except Ended as end:
        how = end.how
    seconds = time.perf_counter() - began
    gain = gain_of(method, out, base, seed)
    shutil.rmtree(out, ignore_errors=True)
    figures = [round(value, 4) for value in (gain.value, gain.low, gain.high)]
    return {"method": method, "seed": seed, "lr": rate or "auto", "gain": figures[0], "ci": figures[1:], "ended": how,
            "seconds": round(seconds)}  # fmt: skip


def table(lines: Sequence[dict[str, Any]]) -> list[str]:
    """A row for each command and rate."""
    rows = ["| command | rate | seeds | gain, mean | lowest | clearly above 0 |", "|---|---|---|---|---|---|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in sorted(lines, key=lambda line: (list(JOBS).index(line["method"]), str(line["lr"]))):
        groups.setdefault((line["method"], str(line["lr"])), []).append(line)
    for (method, rate), runs in groups.items():
        gains = [line["gain"] for line in runs]
        clear = sum(line["ci"][0] > 0 for line in runs)
        rows.append(
            f"| `{method}` | {rate} | {len(runs)} | {sum(gains) / len(gains):+.2f} | {min(gains):+.2f} | "
            f"{clear} of {len(runs)} |"
        )
    return rows


def main() -> int:
    """Make the runs that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, help="directory of what was made")
    parser.add_argument("--methods", default=",".join(JOBS))
    parser.add_argument("--seeds", default="0,1,2,3,4,5,6,7")
    parser.add_argument("--lr", type=float, default=None, help="a rate instead of the default")
    given = parser.parse_args()
    given.keep.mkdir(parents=True, exist_ok=True)
    saved = given.keep / "rates.jsonl"
    lines = read_lines(saved) if saved.is_file() else []
    for seed in map(int, given.seeds.split(",")):
        for method in given.methods.split(","):
            key = (method, seed, given.lr or "auto")
            if any((line["method"], line["seed"], line["lr"]) == key for line in lines):
                continue
            lines.append(made(method, seed, given.keep, {"lr": given.lr} if given.lr else {}))
            with saved.open("a", encoding="utf-8") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(lines[-1], flush=True)
    print("\n".join(table(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
