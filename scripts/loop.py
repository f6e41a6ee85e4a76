"""Does it pay to ask in rounds, and to choose what is asked? On simulated annotators, where the truth is known.

    python scripts/loop.py --keep build/loop --save docs/why/loop.json     # eight seeds; what is there is kept
    python scripts/loop.py --page                                          # docs/why/loop.md from the saved results

Arms of one label budget, number of policy iterations and starting model in the quickstart's world of reviews: one round
with all labels; three rounds with a third of the labels and of the iterations each, pairs chosen at random; the same
with pairs that three reward models disagree on. No run sees the true score: it judges the last policy, on held-out
prompts. Results are saved after each arm. The sizes were chosen on seeds 0, 1 and 100.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from plaudit.config.sections import LogSection, OptimizerSection
from plaudit.data.write import write_records
from plaudit.demo import quickstart, reviews
from plaudit.evaluation.kinds.policy_card import card
from plaudit.evaluation.looping import accuracy_by_round
from plaudit.jobs.reward_texts import table_of
from plaudit.jobs.sft import SFTJob
from plaudit.loop.plan import Plan, read_plan
from plaudit.loop.rounds import run_loop
from plaudit.models.files.saving import write
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.runs.files import LOOP, read_json
from plaudit.stages.online.again import evaluate_against
from plaudit.stages.sft import run_sft
from plaudit.statistics.clustered import mean_over

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs" / "why" / "loop.json", ROOT / "docs" / "why" / "loop.md"
LABELS, ITERATIONS, DEMONSTRATIONS, HIDDEN, PROMPTS, JUDGED = 720, 24, 1600, 64, 600, 240
FIRST = 10
"""The first seed that is reported."""
ARMS: dict[str, dict[str, Any]] = {
    "one round": {"rounds": 1, "choose": "random", "iterations": ITERATIONS},
    "three rounds, random": {"rounds": 3, "choose": "random", "iterations": ITERATIONS // 3},
    "three rounds, active": {"rounds": 3, "choose": "disagreement", "iterations": ITERATIONS // 3},
}
CONFIG = """\
model = "{model}"
dataset = "{prompts}"
out = "{out}"
seed = {seed}
rounds = {rounds}
comparisons = {comparisons}
choose = "{choose}"

[annotators]
source = "plaudit.demo.reviews:true_score"
error_rate = 0.05

[data]
max_length = 96
eval_fraction = 0.2
[sampling]
max_new_tokens = 48
[compute]
precision = "fp32"
threads = 1
[log]
trackers = []
samples = 0

[reward]
epochs = 2
batch_size = 16
members = 3
[reward.optimizer]
lr = 1e-3

[policy]
command = "grpo"
iterations = {iterations}
prompts_per_iteration = 16
eval_prompts = 24
eval_every = 0
kl_limit = 0.0
[policy.optimizer]
lr = 4e-4
[policy.algorithm]
group_size = 4
kl_coef = 0.05
"""


def base_of(root: Path, seed: int) -> Path:
    """What all arms of a seed start from: a fine-tuned model, and prompts."""
    base = root / f"base-{seed}"
    if (base / "done").is_file():
        return base
    shutil.rmtree(base, ignore_errors=True)
    rows = [replace(d, response=f" {d.response}") for d in reviews.demonstrations(DEMONSTRATIONS, seed)]
    write_records(rows, base / "demonstrations.jsonl")
    write_records(reviews.prompts(PROMPTS, seed), base / "prompts.jsonl")
    texts = [f"{d.prompt}{d.response}" for d in rows]
    texts += [str(p.content) for split in ("train", "heldout") for p in reviews.all_prompts(split)]
    tokenizer = tiny_tokenizer(texts, 1024, kind="word", chat=False)
    write(tiny_lm("llama", tokenizer, hidden=HIDDEN, layers=2, seed=seed, scale=0.08), base / "start", tokenizer)
    run_sft(
        SFTJob(
            model=str(base / "start"), dataset=str(base / "demonstrations.jsonl"), out=str(base / "sft"), epochs=3,
            batch_size=16, optimizer=OptimizerSection(lr=4e-3), sampling=quickstart.SAMPLING,
            **quickstart.common(seed) | {"log": LogSection(trackers=(), samples=0)},
        )
    )  # fmt: skip
    (base / "done").touch()
    return base


def plan_of(root: Path, arm: str, seed: int) -> Plan:
    """The config of an arm, written beside its directory."""
    base, what = base_of(root, seed), ARMS[arm]
    out = root / f"{arm.replace(' ', '-').replace(',', '')}-{seed}"
    text = CONFIG.format(
        model=base / "sft" / "model", prompts=base / "prompts.jsonl", out=out, seed=seed,
        comparisons=LABELS // what["rounds"], **what,
    )  # fmt: skip
    path = out.with_suffix(".toml")
    path.write_text(text, encoding="utf-8")
    return read_plan([path])


def measured(root: Path, arm: str, seed: int) -> dict[str, Any]:
    """Carry an arm out, and judge the policy of each round by the true score."""
    began = time.perf_counter()
    plan = plan_of(root, arm, seed)
    out = run_loop(plan, anyway=True)
    seconds = time.perf_counter() - began
    rounds = []
    known = read_json(out / LOOP)["rounds"]
    for number, steps in enumerate(known, 1):
        folder = out / f"round-{number}"
        job = plan.policy(plan.job.model, folder / "reward", folder / plan.command).job
        if number == len(known):
            gold = (table_of(quickstart.GOLD, "gold"),)
            job = job.model_copy(update={"gold": gold, "eval_prompts": JUDGED})
            target = evaluate_against(job, folder / plan.command, folder / "judged", samples=2)
            found = card(target)
        else:
            found = {}
        names = ("gold_mean", "gold_mean_before", "gold_difference", "gold_difference_ci", "kl")
        accuracy = {str(of): row["accuracy"] for of, row in accuracy_by_round(folder / "reward").items()}
        rounds.append({name: found[name] for name in names if name in found} | {
            "kl_to_sft": steps["evaluate"]["kl"], "accuracy": accuracy, "asked": steps["choose"]["asked"],
            "learned_from": steps["mix"]["new"] + steps["mix"]["old"]})  # fmt: skip
    return {"arm": arm, "seed": seed, "seconds": round(seconds, 1), "rounds": rounds}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The gold reward of each arm over seeds, and the differences, paired by seed, with intervals."""
    gold: dict[str, dict[int, float]] = {arm: {} for arm in ARMS}
    for row in rows:
        gold[row["arm"]][row["seed"]] = row["rounds"][-1]["gold_mean"]
    figures: dict[str, Any] = {"arms": {}, "differences": {}}
    for arm, values in gold.items():
        if values:
            found = mean_over(list(values.values()))
            figures["arms"][arm] = {"gold": found.value, "interval": list(found.interval), "seeds": found.n}
    one, random, active = ARMS
    for better, worse in ((random, one), (active, random), (active, one)):
        both = sorted(gold[better].keys() & gold[worse].keys())
        if both:
            gaps = [gold[better][seed] - gold[worse][seed] for seed in both]
            found = mean_over(gaps)
            figures["differences"][f"{better} - {worse}"] = {
                "gold": found.value, "interval": list(found.interval), "seeds": found.n,
                "won": sum(gap > 0 for gap in gaps),
            }  # fmt: skip
    return figures


PAGE_TEXT = """\
# Three rounds or one, active or random

<!-- Written by `python scripts/loop.py --page` from loop.json. Do not edit. -->

In the quickstart's world of reviews the true score of a response is known, so a [loop](../howto/loop.md) can be
judged by what no part of it sees. Three arms have the same {labels} answers of simulated annotators (5 % of them
turned round), a fifth of them held out, the same {iterations} iterations of GRPO, the same small SFT model (hidden
{hidden}, {demonstrations} demonstrations) and the same seeds:

- **one round**: all answers are about responses of the SFT model, then one reward model and one policy;
- **three rounds, random**: a third of answers and iterations in each round, about responses of the policy so far,
  pairs chosen at random;
- **three rounds, active**: the same, but from the second round on the pairs are those that three reward models
  disagree on most, of four times as many candidates.

No run has a gold reward: weights are chosen by the reward model, as they would be with people. The last policy is
judged by the true score on {judged_prompts} held-out prompts, two responses each. Intervals are 95 % over {seeds}
seeds, differences are paired by seed.

## What was reached

| arm | true score | 95 % | KL to the SFT model | reward model, held-out, last round |
|---|---|---|---|---|
{arms}

The SFT models themselves have {start}.

| difference | true score | 95 % | seeds won |
|---|---|---|---|
{differences}

{verdict}
{earlier}
## By seed

| seed | {names} |
|---|{rules}|
{seeds_table}

## What it does not show

- One world, one small model, one size of everything; the sizes were chosen on seeds 0, 1 and 100, before the reported
  ones ran. With other sizes the order may be another: on the first of them, with half as many answers, a higher
  learning rate and a smaller KL coefficient, a policy of the active arm ran away from its reward model in the last
  round and ended at a true score of -2.4.
- The choice of the active arm was changed after its first figures on these seeds had been seen. On three other seeds
  (30 to 32), tried in between, neither disagreement nor a small margin differed from random.
- In three rounds the policy of each round is held near that of the round before, in one round near the SFT model: it
  may go further, and the table says how far.
- A loop with people costs calendar time, which a budget of answers does not count.

`make loop` runs it again; what is there is kept.
"""


def page(whole: dict[str, Any]) -> str:
    """The page on the saved results."""
    rows, figures = whole["rows"], whole["summary"]
    by = {(row["arm"], row["seed"]): row["rounds"][-1] for row in rows}
    seeds = sorted({row["seed"] for row in rows if all((arm, row["seed"]) in by for arm in ARMS)})
    arms = []
    for arm, found in figures["arms"].items():
        mine = [by[arm, seed] for seed in seeds]
        kl, accuracy = mean_over([one["kl"] for one in mine]), mean_over([one["accuracy"]["0"] for one in mine])
        figure = f"{found['gold']:.2f} | {_span(found['interval'])}"
        arms.append(f"| {arm} | {figure} | {kl.value:.1f} | {accuracy.value:.0%} |")
    differences = [
        f"| {name} | {one['gold']:+.2f} | {_span(one['interval'], '+')} | {one['won']} of {one['seeds']} |"
        for name, one in figures["differences"].items()
    ]
    table = ["| " + " | ".join([str(s), *(f"{by[arm, s]['gold_mean']:.2f}" for arm in ARMS)]) + " |" for s in seeds]
    start = mean_over([by[arm, seed]["gold_mean_before"] for arm in ARMS for seed in seeds]).value
    return PAGE_TEXT.format(
        **whole["settings"], seeds=len(seeds), arms="\n".join(arms), differences="\n".join(differences),
        start=f"{start:.2f}", earlier=_earlier(whole), verdict=_verdict(figures["differences"]), names=" | ".join(ARMS),
        rules="|".join("---" for _ in ARMS), seeds_table="\n".join(table),
    )  # fmt: skip


def _earlier(whole: dict[str, Any]) -> str:
    """What the active arm reached when its pairs were also chosen to differ from each other; that was given up."""
    if "diverse" not in whole:
        return ""
    arm = list(ARMS)[-1]
    rows = [row for row in whole["rows"] if row["arm"] != arm] + whole["diverse"]
    [(_, found)] = [item for item in summary(rows)["differences"].items() if item[0].endswith("three rounds, random")]
    won = f"{found['won']} of {found['seeds']} seeds won"
    return (
        "\nThe active arm ran twice. At first its pairs were also chosen to differ from each other (farthest first\n"
        "among the best three quarters of the candidates), which takes the strangest responses. Its difference to\n"
        f"random was then {found['gold']:+.2f} ({_span(found['interval'], '+')}, {won}). The loop does not do so any\n"
        "more.\n"
    )


def _span(ends: list[float], sign: str = "") -> str:
    return f"{ends[0]:{sign}.2f} to {ends[1]:{sign}.2f}"


def _verdict(differences: dict[str, dict[str, Any]]) -> str:
    """What was aimed at, and whether it was reached."""
    one, random, active = ARMS
    lines = []
    for goal, name in (
        ("three rounds beat one", f"{random} - {one}"),
        ("active choice beats random", f"{active} - {random}"),
        ("three rounds with active choice beat one", f"{active} - {one}"),
    ):
        low, high = differences[name]["interval"]
        said = "reached" if low > 0 else "missed, and the opposite was found" if high < 0 else "not shown"
        why = "" if low > 0 or high < 0 else ": the interval contains zero"
        lines.append(f"- The aim that {goal}: **{said}**{why}.")
    return "\n".join(lines)


def main() -> int:
    """Run what is missing, save, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--keep", type=Path, default=ROOT / "build" / "loop", help="where the runs are")
    parser.add_argument("--save", type=Path, default=RESULTS, help="the results, a JSON file")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=FIRST, help=f"the first seed [{FIRST}]")
    parser.add_argument("--page", action="store_true", help="only write the page from the saved results")
    given = parser.parse_args()
    whole = json.loads(given.save.read_text(encoding="utf-8")) if given.save.is_file() else {}
    known = whole.get("rows", [])
    for seed in range(given.first, given.first + (0 if given.page else given.seeds)):
        for arm in ARMS:
            if any(row["seed"] == seed and row["arm"] == arm for row in known):
                continue
            known.append(measured(given.keep, arm, seed))
            whole |= {"settings": settings(), "rows": known, "summary": summary(known)}
            given.save.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
            print(json.dumps(known[-1]), flush=True)
    print(json.dumps(summary(known), indent=1))
    if given.page:
        PAGE.write_text(page(json.loads(given.save.read_text(encoding="utf-8"))), encoding="utf-8")
    return 0


def settings() -> dict[str, int]:
    """The size of the study."""
    return {
        "labels": LABELS, "iterations": ITERATIONS, "demonstrations": DEMONSTRATIONS, "hidden": HIDDEN,
        "prompts": PROMPTS, "judged_prompts": JUDGED // 2,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
