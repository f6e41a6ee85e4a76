"""Are the weights that training gives the same, to the last bit, as those of another commit?

python scripts/same_weights.py                      every job, against the last commit of the first layout
python scripts/same_weights.py --commit main~3 --jobs ppo,grpo
python scripts/same_weights.py --runs DIR           keep the runs; those of the other commit are used again

The other commit is installed beside this one (``pip install --no-deps --target``), so both use the same libraries on
the same machine. Each job is one training command on a tiny model, typed as a user would; the models and every metric
that is not a time are compared. The exit code is 1 if anything differs. No digest is stored, because processors round
differently. What changed on purpose is set as it was: the scale of GRPO (it divided by the deviation of the group, and
divides by nothing today, docs/why/kl-in-force.md), and texts of responses without special tokens. Held-out evaluation
draws other samples today, so of a policy the training metrics and the weights are compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from plaudit.data.write import write_records
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Demonstration, Preference, Prompt

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "b8d319e"
"""The last commit before the seam for backends was built."""
WORDS = ("red", "blue", "green", "warm", "cold", "good", "bad", "big")
REWARD_FILE = """\
def good(prompt, response):
    return response.count("good") - 0.5 * response.count("bad") + 0.1 * len(response.split())
"""
QUICK = "--precision fp32 --threads 1 --no-progress --no-tensorboard"
ONLINE = f"--iterations 4 --prompts-per-iteration 4 --max-new-tokens 6 --eval-fraction 0.25 --lr 1e-3 {QUICK}"
OFFLINE = f"--batch-size 8 --max-new-tokens 4 {QUICK}"
TEXTS, PAIRS = (f"--model {{lm}} --dataset {{root}}/{name}.jsonl" for name in ("demonstrations", "preferences"))
REWARDED = "{lm} --reward {root}/reward.py:good --gold {root}/reward.py:good --dataset {root}/prompts.jsonl"
JOBS = {
    "sft": f"sft {TEXTS} --epochs 2 --lr 1e-3 {OFFLINE}",
    "sft-lora": f"sft {TEXTS} --rank 2 --last-layers 1 --lr 1e-2 {OFFLINE}",
    "reward": f"reward {PAIRS} --epochs 2 --lr 1e-3 --batch-size 8 {QUICK}",
    "dpo": f"dpo {PAIRS} --epochs 2 --lr 1e-3 {OFFLINE}",
    "simpo": f"dpo --type simpo {PAIRS} --lr 1e-3 {OFFLINE}",
    "ppo": f"ppo --policy {REWARDED} --critic-warmup 1 --epochs 2 --minibatches 2 {ONLINE}",
    "ppo-reward-model": "ppo --policy {lm} --reward {side}/reward/model --dataset {root}/prompts.jsonl "
    f"--critic-warmup 0 {ONLINE}",
    "ppo-trunk": f"ppo --policy {REWARDED} --critic trunk --critic-warmup 1 {ONLINE}",
    "ppo-lora": f"ppo --policy {REWARDED} --rank 2 --critic-warmup 1 {ONLINE}",
    "ppo-max": f"ppo --type ppo_max_code --policy {REWARDED} {ONLINE}",
    "grpo": f"grpo --policy {REWARDED} --scale group --group-size 4 {ONLINE}",
    "dr-grpo": f"grpo --type dr_grpo --policy {REWARDED} --group-size 4 {ONLINE}",
    "dapo": f"grpo --type dapo --policy {REWARDED} --group-size 4 {ONLINE}",
    "gspo": f"grpo --type gspo --policy {REWARDED} --group-size 4 {ONLINE}",
    "cispo": f"grpo --type cispo --policy {REWARDED} --group-size 4 {ONLINE}",
    "rloo": f"rloo --policy {REWARDED} --group-size 4 {ONLINE}",
    "reinforce": f"reinforce --policy {REWARDED} {ONLINE}",
    "reinforce-pp": f"reinforce --type reinforce_pp --policy {REWARDED} {ONLINE}",
    "online-dpo": f"online-dpo --policy {REWARDED} {ONLINE}",
    "best-of-n": f"best-of-n --policy {REWARDED} --max-new-tokens 6 --eval-fraction 0.25 {QUICK}",
}
"""Name -> the command. ``{lm}``, ``{root}``: made once; ``{side}``: the runs of this side."""
TODAY = ("--text", "plain")
"""What a job that samples is told in addition today: by default rewards see special tokens now."""
TIMED = ("time", "time/", "throughput/", "memory/")


@dataclass(frozen=True)
class Difference:
    """What differs between two runs of a job; the counts say that something was compared."""

    tensors: int
    numbers: int
    lines: tuple[str, ...]


def make_world(root: Path) -> None:
    """A tiny model, its data and a reward function, read by both sides."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer([f"say{_words(i, 4)}" for i in range(64)], chat=False)
    tiny_lm("llama", tokenizer, hidden=16, layers=2, scale=0.2).save_pretrained(root / "lm")
    tokenizer.save_pretrained(root / "lm")
    prompts = [Prompt(f"p{i}", f"say{_words(i, 1 + i % 3)}") for i in range(16)]
    write_records(prompts, root / "prompts.jsonl")
    texts = [Demonstration(f"d{i}", f"say{_words(i, 2)}", _words(i + 1, 2 + i % 3)) for i in range(24)]
    write_records(texts, root / "demonstrations.jsonl")
    worse = (" bad bad", " cold bad", " bad cold big")
    pairs = [Preference(f"c{i}", f"say{_words(i, 2)}", " good good", worse[i % 3]) for i in range(24)]
    write_records(pairs, root / "preferences.jsonl")
    (root / "reward.py").write_text(REWARD_FILE, encoding="utf-8")


def _words(start: int, count: int) -> str:
    return "".join(f" {WORDS[(start * 5 + j * 3) % len(WORDS)]}" for j in range(count))


def install(commit: str, target: Path) -> None:
    """The package of ``commit`` in ``target``, beside the libraries that are installed already."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(source)], check=True)
        subprocess.run(["git", "checkout", "--quiet", commit], cwd=source, check=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        subprocess.run([*pip, str(source)], check=True)


def run(name: str, package: Path, root: Path, side: Path) -> Path:
    """One job by the package in ``package``; the run directory."""
    out = side / name
    command = JOBS[name].format(lm=root / "lm", root=root, side=side)
    environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    shutil.rmtree(out, ignore_errors=True)
    today = TODAY if package == ROOT / "src" and " --max-new-tokens 6 " in command else ()
    words = [sys.executable, "-m", "plaudit.cli.main", *command.split(), *today, "--out", str(out)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, cwd=root)
    if done.returncode:
        raise SystemExit(f"{name} with {package} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return out


def compare(before: Path, after: Path) -> Difference:
    """Models and metrics of two runs."""
    lines: list[str] = []
    tensors = numbers = 0
    files = sorted(path.relative_to(before) for path in before.glob("model/**/*.safetensors"))
    for file in files:
        ours, theirs = load_file(after / file), load_file(before / file)
        tensors += len(theirs)
        for name in sorted(ours.keys() | theirs.keys()):
            if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name]):
                lines.append(f"{file}: {name} {_gap(theirs.get(name), ours.get(name))}")
    for file in ("metrics.jsonl", "heldout.jsonl", "best.jsonl"):
        rows = [_rows(side / file) for side in (before, after)]
        numbers += sum(map(len, rows[0]))
        if len(rows[0]) != len(rows[1]):
            lines.append(f"{file}: {len(rows[0])} lines before, {len(rows[1])} now")
        for number, (old, new) in enumerate(zip(*rows, strict=False), 1):
            unlike = [key for key in old if not _same(old[key], new.get(key))]
            lines += [f"{file}, line {number}: {key} {old[key]} -> {new.get(key)}" for key in unlike]
    return Difference(tensors, numbers, tuple(lines))


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in row.items() if k != TIMED[0] and not k.startswith(TIMED[1:])} for row in rows]


def _same(old: Any, new: Any) -> bool:
    both_nan = isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new)
    return both_nan or bool(old == new)


def _gap(old: torch.Tensor | None, new: torch.Tensor | None) -> str:
    if old is None or new is None:
        return "is new" if old is None else "is gone"
    if old.shape != new.shape:
        return f"had shape {tuple(old.shape)}, has {tuple(new.shape)}"
    return f"differs by up to {float((old.double() - new.double()).abs().max()):.3g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run every job on both sides and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default=BEFORE, help=f"the commit to compare with (default {BEFORE})")
    parser.add_argument("--jobs", default=",".join(JOBS), help="some of the jobs, between commas")
    parser.add_argument("--runs", type=Path, help="keep the runs in this directory")
    options = parser.parse_args(argv)
    names = options.jobs.split(",")
    if unknown := [name for name in names if name not in JOBS]:
        parser.error(f"no job {unknown[0]}; there are {', '.join(JOBS)}")
    if "ppo-reward-model" in names and "reward" not in names:
        names.insert(0, "reward")  # it is what that job's policy is trained against
    with tempfile.TemporaryDirectory() as folder:
        root = options.runs.resolve() if options.runs else Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        make_world(root)
        if not (root / "installed").exists():
            install(options.commit, root / "installed")
        different = 0
        for name in names:
            before = root / "before" / name
            if not (before / "summary.json").exists():
                run(name, root / "installed", root, root / "before")
            after = run(name, ROOT / "src", root, root / "after")
            result = compare(before, after)
            compared = f"{result.tensors} tensors, {result.numbers} figures"
            print(f"{name:<18}{'DIFFERS' if result.lines else 'the same':<10}{compared}", flush=True)
            print("".join(f"    {line}\n" for line in result.lines[:8]), end="", flush=True)
            different += bool(result.lines)
    total = f"{len(names) - different} of {len(names)} jobs are the same to the last bit as with {options.commit}"
    print(f"{total} (torch {torch.__version__}, one thread)")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
