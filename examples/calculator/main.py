"""A tiny model learns to call a calculator.

Its demonstrations show both ways: half of them call the calculator, half answer at once with a number that is a guess.
So after imitation it calls about every second time, and the answers without a call are mostly wrong. GRPO rewards right
answers only. The optimum is known: always call, and every answer is right.

    python examples/calculator/main.py          # offline, about twenty seconds of one core
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from random import Random

import plaudit
from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer

sys.path.insert(0, str(Path(__file__).parent))
from calculator import Calculator


def demonstration(a: int, b: int, guess: int | None) -> dict[str, str]:
    """A question and its answer: a guess, or a call and what it gives."""
    called = f"<calc>{a} + {b}</calc><result>{a + b}</result>{a + b}"
    return {"prompt": f"{a} + {b} =", "response": called if guess is None else f"{guess}"}


def right(final: str, answer: str) -> float:
    """1 where the policy's last turn is the answer; what the environment wrote is in no turn of the policy."""
    return float(final.strip() == answer)


def main(out: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Imitate, then learn; shares of calls and of right answers on held-out questions, before and after."""
    chance = Random(0)
    sums = [(a, b) for a in range(10) for b in range(10)]
    guesses = [(None, None, chance.randrange(19), chance.randrange(19)) for _ in sums]
    rows = [demonstration(a, b, guess) for (a, b), four in zip(sums, guesses, strict=True) for guess in four]
    text = " ".join(f"{row['prompt']} {row['response']}" for row in rows) + " ".join(map(str, range(19)))
    tokenizer = tiny_tokenizer([text], 64, chat=False)
    save_causal_lm(tiny_lm("gpt2", tokenizer, hidden=64, layers=2, scale=0.1), out / "start", tokenizer)
    (out / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = plaudit.train(
        plaudit.SFT(), model=str(out / "start"), dataset=str(out / "calls.jsonl"),
        epochs=12, batch_size=16, lr=3e-3, out=str(out / "sft"),
    )  # fmt: skip
    run = plaudit.train(
        plaudit.GRPO(group_size=8, scale="none", kl_coef=0.0),
        policy=str(sft.path / "model"),
        prompts=[plaudit.Prompt(f"{a}+{b}", f"{a} + {b} =", answer=str(a + b)) for a, b in sums],
        reward=right,
        environment=Calculator(),
        iterations=24, prompts_per_iteration=16, eval_prompts=50, eval_every=24, lr=1e-3, eval_fraction=0.5,
        max_new_tokens=14, max_length=40, out=str(out / "grpo"),
    )  # fmt: skip
    return shares(run.path, 0), shares(run.path, 24)


def shares(run: Path, step: int) -> dict[str, float]:
    """Of the held-out questions at one evaluation."""
    lines = (run / "evaluation.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["step"] == step]
    calls = sum(any(turn["author"] == "environment" for turn in row.get("turns", ())) for row in rows)
    return {"called": calls / len(rows), "right": sum(row["reward"] for row in rows) / len(rows)}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        before, after = main(Path(folder))
    print(f"calls the calculator: {before['called']:.0%} before, {after['called']:.0%} after")
    print(f"answers right: {before['right']:.0%} before, {after['right']:.0%} after")
