"""How close is the memory plan to what runs really take? Over models and methods, each in processes of its own.

python scripts/memory.py            writes docs/why/memory.json and the table of docs/why/memory.md (about 10 minutes)
python scripts/memory.py NAME ...   only these cases, on the console

The plan is made in one process, before anything is loaded. A second one runs the training and counts the bytes of live
tensors; a third one runs it again and asks the system for the largest resident size. Models have random weights: memory
does not depend on them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig, Qwen2Config

from plaudit import backends
from plaudit.algorithms.grpo import GRPO
from plaudit.algorithms.ppo import PPO
from plaudit.backends.local.memory.rehearsal import LiveBytes
from plaudit.backends.local.online import peak_gb
from plaudit.config.sections import (
    ComputeSection,
    DataSection,
    Job,
    LogSection,
    LoraSection,
    SamplingSection,
)
from plaudit.data.load import load_records
from plaudit.data.write import write_records
from plaudit.jobs.online import GRPOJob, RLJob
from plaudit.jobs.preference import DPOJob
from plaudit.jobs.reward import RewardJob
from plaudit.jobs.reward_tables import ModelTable
from plaudit.jobs.sft import SFTJob
from plaudit.models.tiny import tiny_tokenizer
from plaudit.records import Demonstration, Preference, Prompt
from plaudit.stages import stage_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "why" / "memory.md"
WORDS = [f"w{i}" for i in range(1500)]
ADAPTERS, RECOMPUTING = {"rank": 8}, {"gradient_checkpointing": True}
CASES: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "llama 22M, sft": ("llama", "sft", {}, {}),
    "llama 22M, sft, recomputing": ("llama", "sft", {}, RECOMPUTING),
    "gpt2 21M, sft, adapters": ("gpt2", "sft", ADAPTERS, {}),
    "qwen2 22M, reward": ("qwen2", "reward", {}, {}),
    "gpt2 21M, dpo": ("gpt2", "dpo", {}, {}),
    "llama 22M, dpo, adapters": ("llama", "dpo", ADAPTERS, {}),
    "llama 22M, ppo with a reward model": ("llama", "ppo", {}, {}),
    "llama 22M, ppo on one backbone": ("llama", "ppo", ADAPTERS, {}),
    "gpt2 21M, grpo with a reward model": ("gpt2", "grpo", {}, {}),
    "llama 107M, sft, adapters": ("smollm", "sft", ADAPTERS, {"tokens_per_microbatch": 512}),
}
"""Name -> model, method, adapters, [compute]."""


def config(kind: str, vocabulary: int) -> PreTrainedConfig:
    """The settings of a model; "smollm" has the sizes of SmolLM2-135M, but for its vocabulary."""
    if kind == "gpt2":
        return GPT2Config(vocab_size=vocabulary, n_embd=512, n_layer=6, n_head=8, n_positions=512)
    if kind == "smollm":
        return LlamaConfig(
            vocab_size=vocabulary, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
        )  # fmt: skip
    make = Qwen2Config if kind == "qwen2" else LlamaConfig
    return make(
        vocab_size=vocabulary, hidden_size=512, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, tie_word_embeddings=True, max_position_embeddings=512,
    )  # fmt: skip


def sentence(i: int, n: int) -> str:
    """``n`` words that follow from ``i``."""
    return "".join(f" {WORDS[(i * 37 + j * 13) % len(WORDS)]}" for j in range(n))


def job_of(name: str, root: Path) -> Job:
    """The job of a case, whose model and data are made where they are missing."""
    kind, method, lora, compute = CASES[name]
    tokenizer = tiny_tokenizer([sentence(i, 60) for i in range(300)], 1200, chat=False)
    lm = root / kind
    if not lm.exists():
        AutoModelForCausalLM.from_config(config(kind, len(tokenizer))).save_pretrained(lm)
        tokenizer.save_pretrained(lm)
        rows = [Demonstration(f"d{i}", sentence(i, 20), sentence(i + 1, 40)) for i in range(40)]
        write_records(rows, root / "d.jsonl")
        pairs = [Preference(f"c{i}", sentence(i, 20), sentence(i + 2, 40), sentence(i + 7, 40)) for i in range(40)]
        write_records(pairs, root / "c.jsonl")
        write_records([Prompt(f"p{i}", sentence(i, 20)) for i in range(40)], root / "p.jsonl")
    settings: dict[str, Any] = {
        "out": str(root / "run"), "overwrite": True, "lora": LoraSection(**lora),
        "compute": ComputeSection(**({"precision": "fp32", "threads": 1, "tokens_per_microbatch": 1024} | compute)),
        "data": DataSection(max_length=128), "log": LogSection(trackers=(), samples=2),
    }  # fmt: skip
    sampling = SamplingSection(max_new_tokens=40, min_new_tokens=40)
    if method == "sft":
        return SFTJob(model=str(lm), dataset=str(root / "d.jsonl"), batch_size=16, sampling=sampling, **settings)
    if method == "dpo":
        return DPOJob(model=str(lm), dataset=str(root / "c.jsonl"), batch_size=8, sampling=sampling, **settings)
    trained = {"model": str(lm), "dataset": str(root / "c.jsonl"), "batch_size": 8}
    if method == "reward":
        return RewardJob(**(settings | trained))
    reward = root / f"reward-{kind}-{bool(lora)}"
    if not reward.exists():
        stage_of(RewardJob)(RewardJob(**(settings | trained | {"out": str(reward)})), {})
    online = {
        "policy": str(lm), "reward": (ModelTable(path=str(reward)),), "dataset": str(root / "p.jsonl"),
        "iterations": 2, "prompts_per_iteration": 8, "eval_prompts": 4, "sampling": sampling,
    }  # fmt: skip
    if method == "ppo":
        return RLJob(algorithm=PPO(critic_warmup=0), **(settings | online))
    return GRPOJob(algorithm=GRPO(group_size=4), **(settings | online))


def one(name: str, what: str, root: Path) -> dict[str, Any]:
    """What a process of its own finds: the plan, the bytes of live tensors, or the largest resident size."""
    job = job_of(name, root)
    if what == "plan":
        kind: Any = {SFTJob: "demonstration", RewardJob: "preference", DPOJob: "preference"}.get(type(job), "prompt")
        plan = backends.plan(job, load_records(job.dataset, kind).records)
        return {"peak": plan.peak, "need": plan.need, "at": plan.moment, "held": dict(plan.held)}
    if what == "bytes":
        live = LiveBytes()
        with live:
            stage_of(type(job))(job, {})
        return {"peak": live.peak}
    if what == "resident":
        import torch

        stage_of(type(job))(job, {})
        return {"resident": int(1e9 * peak_gb(torch.device("cpu")))}
    return {}


def measured(name: str, root: Path) -> dict[str, Any]:
    """All three of a case; first its models are made, in a process of its own too."""
    found: dict[str, Any] = {}
    for what in ("models", "plan", "bytes", "resident"):
        words = [sys.executable, __file__, "--one", name, what, str(root)]
        result = subprocess.run(words, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"{name}, {what}:\n{result.stderr[-3000:]}")
        found[what] = json.loads(result.stdout.splitlines()[-1])
    plan = found["plan"]
    return {
        "case": name, "at": plan["at"], "planned_tensors": plan["peak"], "measured_tensors": found["bytes"]["peak"],
        "planned_process": plan["need"], "measured_process": found["resident"]["resident"],
    }  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, in MB."""
    lines = [
        "| run | most is needed when | tensors: planned | measured | ratio | process: planned | measured | ratio |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        pairs = [(row[f"planned_{x}"], row[f"measured_{x}"]) for x in ("tensors", "process")]
        cells = " | ".join(f"{a / 1e6:.0f} | {b / 1e6:.0f} | {a / b:.3f}" for a, b in pairs)
        lines.append(f"| {row['case']} | {row['at']} | {cells} |")
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """See the module."""
    warnings.simplefilter("ignore")
    if words[:1] == ["--one"]:
        found = one(words[1], words[2], Path(words[3]))
        print(f"\n{json.dumps(found)}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for name in words or CASES:
            rows.append(measured(name, Path(folder)))
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    if not words:
        PAGE.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        page = PAGE.read_text(encoding="utf-8")
        page = re.sub(r"(?s)(<!-- table -->\n).*?(\n?<!-- end -->)", rf"\g<1>{table(rows)}\g<2>", page)
        PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
