"""Synthetic runs: what training would have left behind, with effects that are known."""

import json
import math

import numpy as np
import pytest

PROMPTS = [
    "The film about",
    "A lazy sunday and",
    "I had hoped for",
    "The actors were",
    "Its music is",
    "In the end",
]
BAD = ["a dull and tired plot that went nowhere", "boring boring boring", "nothing I would watch again"]
GOOD = [
    "a wonderful, warm story that I loved",
    "great fun from start to end",
    "moving, and beautifully played",
]


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_run(run, command, metrics, *, extra=None, config="", message=""):
    run.mkdir(parents=True, exist_ok=True)
    write_lines(run / "metrics.jsonl", metrics)
    events = [{"time": 1_760_000_000.0, "event": "started", "command": command}]
    if message:
        events.append({"time": 1_760_000_050.0, "event": "alarm", "message": message})
    events.append({"time": 1_760_000_100.0, "event": "saved", "path": str(run / "model")})
    events.append({"time": 1_760_000_101.0, "event": "stopped", "reason": "finished"})
    write_lines(run / "events.jsonl", events)
    (run / "summary.json").write_text(json.dumps({"command": command, **(extra or {})}))
    (run / "config.toml").write_text(
        config or "seed = 0      # default\n\n[optimizer]\nlr = 1e-4    # command line\n"
    )
    versions = {"python": "3.11.7", "torch": "2.13.0"}
    inputs = {"dataset": {"source": "data.jsonl", "sha256": "ab" * 32}}
    (run / "manifest.json").write_text(
        json.dumps({"created": "2025-10-09T08:53:20+0000", "seed": 0, "versions": versions, "inputs": inputs})
    )
    return run


def make_sft(run, *, steps=60):
    rng = np.random.default_rng(0)
    metrics = [
        {
            "step": s,
            "time": 1.76e9 + s,
            "loss": 1.0 + 2.4 * math.exp(-s / 12) + rng.normal(0, 0.06),
            "lr": 1e-4 * (1 - s / steps),
            "grad_norm": 1.0 + rng.random(),
            "policy/entropy": 1.4 + 1.5 * math.exp(-s / 15),
        }
        for s in range(1, steps + 1)
    ]
    write_run(run, "sft", metrics, extra={"train_rows": 960})
    write_lines(
        run / "heldout.jsonl",
        [
            {"step": s, "id": f"d{i}", "prompt_id": f"p{i}", "loss": (10 + i % 4) * per_token, "tokens": 10 + i % 4}
            for s, per_token in ((0, 3.4), (steps, 1.08))
            for i in range(96)
        ],
    )
    write_lines(
        run / "samples.jsonl",
        [
            {"step": s, "prompt_id": f"p{i}", "prompt": p, "response": text, "finish_reason": "stop"}
            for s, texts in ((0, ["the the of of and xq"] * 6), (steps, BAD + GOOD))
            for i, (p, text) in enumerate(zip(PROMPTS, texts, strict=True))
        ],
    )
    return run


def make_reward(run, *, pairs=300, skill=1.5, steps=50):
    rng = np.random.default_rng(1)
    rows = []
    for i in range(pairs):
        chosen, rejected = rng.integers(5, 30, 2).tolist()
        gap = float(rng.normal(skill, 1.5))
        rejected_score = float(rng.normal())
        rows.append(
            {
                "id": f"c{i}",
                "prompt_id": f"p{i // 2}",
                "chosen_score": rejected_score + gap,
                "rejected_score": rejected_score,
                "chosen_length": chosen,
                "rejected_length": rejected,
                "margin": None,
            }
        )
    metrics = [
        {
            "step": s,
            "time": 1.76e9 + s,
            "loss": 0.35 + 0.34 * math.exp(-s / 10) + rng.normal(0, 0.02),
            "reward_model/accuracy": min(1.0, 0.86 - 0.35 * math.exp(-s / 9) + rng.normal(0, 0.03)),
            "reward_model/margin": 1.6 - 1.6 * math.exp(-s / 10),
        }
        for s in range(1, steps + 1)
    ]
    write_run(run, "reward", metrics, extra={"train_rows": 2700})
    write_lines(run / "heldout.jsonl", rows)
    return run


def make_rl(run, *, iterations=40, gold_gain=1.0, reward_gain=1.5, kl=5.0, growth=1.1, gold=True, prompts=64):
    rng = np.random.default_rng(2)
    metrics = []
    for s in range(1, iterations + 1):
        done = 1 - math.exp(-3 * s / iterations)
        metrics.append(
            {
                "step": s,
                "time": 1.76e9 + s,
                "reward/mean": -0.1 + reward_gain * done + rng.normal(0, 0.12),
                "reward/std": 1.0,
                "objective/kl": kl * done + abs(rng.normal(0, 0.1)),
                "objective/kl_coef": 0.05,
                "policy/entropy": 2.2 - 0.7 * done + rng.normal(0, 0.02),
                "policy/clip_fraction": 0.09 + rng.normal(0, 0.015),
                "policy/approx_kl": 0.008 + abs(rng.normal(0, 0.002)),
                "critic/explained_variance": 0.7 * done + rng.normal(0, 0.05),
                "response/length_mean": 18 * (1 + (growth - 1) * done) + rng.normal(0, 0.3),
                "response/eos_rate": min(1.0, 0.96 + 0.03 * done),
                "throughput/tokens_per_second": 900 + rng.normal(0, 20),
                "lr": 1e-5,
            }
        )
    rows = []
    base = rng.normal(0, 1, prompts)
    for step in sorted({0, *range(iterations // 8, iterations + 1, max(iterations // 8, 1)), iterations}):
        done = 0.0 if step == 0 else 1 - math.exp(-3 * step / iterations)
        for i in range(prompts):
            length = int(18 * (1 + (growth - 1) * done))
            ref = -length * (2.2 + 0.1 * done)
            spread = kl * done + (rng.normal(0, 0.8) if step else 0.0)
            text = (GOOD if rng.random() < 0.25 + 0.7 * done else BAD)[i % 3]
            row = {
                "step": step,
                "prompt_id": f"p{i}",
                "k": 0,
                "prompt": PROMPTS[i % 6],
                "response": text,
                "reward": base[i] + reward_gain * done + rng.normal(0, 0.4),
                "kl": spread,
                "length": length,
                "finish_reason": "stop" if i else "length",
                "logprob": ref + spread,
                "ref_logprob": ref,
            }
            rows.append(row | ({"gold": base[i] + gold_gain * done + rng.normal(0, 0.4)} if gold else {}))
    write_run(run, "ppo", metrics)
    write_lines(run / "evaluation.jsonl", rows)
    write_lines(run / "samples.jsonl", [row for row in rows if int(row["prompt_id"][1:]) < 8])
    return run


def make_quickstart(root, **options):
    preferences = [
        {"prompt": p, "chosen": GOOD[i % 3], "rejected": BAD[i % 3]} for i, p in enumerate(PROMPTS)
    ]
    write_lines(root / "data" / "preferences.jsonl", preferences)
    write_lines(root / "data" / "demonstrations.jsonl", [{"prompt": p, "response": GOOD[0]} for p in PROMPTS])
    write_lines(root / "data" / "prompts.jsonl", [{"prompt": p} for p in PROMPTS])
    make_sft(root / "sft")
    make_reward(root / "reward")
    make_rl(root / "ppo", **options)
    return root


@pytest.fixture
def synthetic():
    """The makers of runs, by command."""
    return {"sft": make_sft, "reward": make_reward, "ppo": make_rl, "quickstart": make_quickstart}
