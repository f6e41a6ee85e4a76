"""How close is the memory plan of workers to what they really take? On ranks of torch.distributed, and on Ray.

python scripts/cluster_memory.py          writes docs/why/cluster-memory.json and the table of its page
python scripts/cluster_memory.py --page   only the table, from that file

A rank is what a Ray worker runs (`plaudit.backends.ray.parts`), in a process of its own on a CPU. Its largest resident
size during two optimizer steps, less what it had before its models were loaded, is compared with the plan of a worker.
Models have random weights: memory does not depend on them. Needs Linux (/proc).
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

# glibc would keep freed activations in pieces, and they would be measured with what is alive: docs/why/memory.md.
os.environ |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, LlamaConfig

from plaudit import backends
from plaudit.algorithms.ppo import PPO
from plaudit.backends.local.memory.plan import positions_of, sources_of
from plaudit.backends.local.memory.traffic import RowLengths, as_allowed
from plaudit.backends.ray.memory import share_of
from plaudit.backends.ray.parts import build_parts
from plaudit.config.sections import ComputeSection, DataSection, Job, LoraSection, SamplingSection
from plaudit.data.chat import Encoded
from plaudit.data.collate import collate_demonstrations
from plaudit.experience import Loss
from plaudit.jobs.online import RLJob
from plaudit.jobs.sft import SFTJob
from plaudit.models.tiny import tiny_tokenizer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "why" / "cluster-memory.md"
SIZES = {"tiny": (384, 1024, 6, 6), "small": (768, 2048, 8, 12)}
"""Width, width of the MLP, layers, heads."""
WORDS = 8000
RANKS = 2
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sft, 16M": ("tiny", "sft", {}),
    "ppo, 16M, with a critic and a reference": ("tiny", "ppo", {}),
    "sft, 16M, recomputing": ("tiny", "sft", {"gradient_checkpointing": True}),
    "sft, 16M, adapters": ("tiny", "sft", {"rank": 8}),
    "sft, 63M": ("small", "sft", {}),
    "sft, 16M, bf16": ("tiny", "sft", {"precision": "bf16"}),
}
"""Name -> model, method, changes. Each on two ranks."""


def make_models(root: Path) -> None:
    """Both sizes, with one tokenizer."""
    tokenizer = tiny_tokenizer([" ".join(f"w{i}" for i in range(WORDS))], WORDS, chat=False)
    for name, (width, mlp, layers, heads) in SIZES.items():
        config = LlamaConfig(
            vocab_size=WORDS, hidden_size=width, intermediate_size=mlp, num_hidden_layers=layers,
            num_attention_heads=heads, num_key_value_heads=heads // 3, tie_word_embeddings=False,
            max_position_embeddings=512,
        )  # fmt: skip
        AutoModelForCausalLM.from_config(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)


def job_of(name: str, root: Path) -> Job:
    """The job of a case."""
    model, method, changes = CASES[name]
    compute = {name: value for name, value in changes.items() if name != "rank"}
    settings: dict[str, Any] = {
        "dataset": "never", "out": "never", "data": DataSection(max_length=128),
        "lora": LoraSection(rank=changes.get("rank", 0)),
        "compute": ComputeSection(**({"device": "cpu", "precision": "fp32", "backend": "ray", "workers": RANKS,
                                      "tokens_per_microbatch": 256, "threads": 1} | compute)),
    }  # fmt: skip
    if method == "sft":
        return SFTJob(model=str(root / model), batch_size=4 * RANKS, **settings)
    return RLJob(
        policy=str(root / model), prompts_per_iteration=4 * RANKS, algorithm=PPO(minibatches=1),
        sampling=SamplingSection(max_new_tokens=64), **settings,
    )  # fmt: skip


def rows_of(job: Job) -> Any:
    """As many rows as one of the ranks has, each as long as the settings allow."""
    one = share_of(job, RANKS)
    traffic = as_allowed(one, positions_of(sources_of(one)[0]))
    count = one.batch_size if isinstance(one, SFTJob) else one.responses_per_iteration  # type: ignore[attr-defined]
    units = traffic.largest(count)[:count]
    batch = collate_demonstrations([_row(i, unit[0]) for i, unit in enumerate(units)], 0)
    return batch.replace(loss_weights=batch.response_mask / batch.response_mask.sum())


def _row(index: int, row: RowLengths) -> Encoded:
    ids = [2 + index % 97] * row.prompt + [2 + (31 * index) % 89] * row.response
    return Encoded(ids, [False] * row.prompt + [True] * row.response, row.prompt)


def resident(*, afresh: bool = False) -> tuple[int, int]:
    """The largest resident size of this process so far, and that of now, in bytes."""
    gc.collect()
    if afresh:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    found = [re.search(rf"{name}:\s+(\d+)", status) for name in ("VmHWM", "VmRSS")]
    largest, now = (1024 * int(match[1]) for match in found if match)
    return largest, now


def likelihood(batch: Any, out: Any) -> Loss:
    """Of the responses, or of the critic the square of its values."""
    value = -out.logprobs.sum() if out.logprobs is not None else out.values.square().sum()
    return Loss(value * 1e-3, {})


def measure(rank: int, names: list[str], root: str) -> None:
    """What a rank takes in each of some cases; the first one writes it down after each."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{root}/meet", rank=rank, world_size=RANKS)
    found = {}
    # The first case is gone through before it is measured: libraries that compute for the first time take some 45 MB.
    for name in [names[0], *names]:
        job = job_of(name, Path(root))
        _, before = resident(afresh=True)
        parts = build_parts(job)
        loading = resident()[0] - before
        _, held = resident(afresh=True)
        batch = rows_of(job)
        for learner in parts.learners.values():
            learner.plan(10)
        for _ in range(2):  # moments are there from the first step on, so the second one is the largest
            for learner in parts.learners.values():
                learner.step_on([(batch, likelihood, True)])
        largest, after = resident()
        found[name] = {"loading": loading, "held": after - before, "peak": largest - before, "process": before}
        if rank == 0:
            (Path(root) / "measured.json").write_text(json.dumps(found))
        del parts, learner, held
        dist.barrier()
    dist.destroy_process_group()


def planned(name: str, root: Path) -> dict[str, int]:
    """The plan of a worker of a case."""
    needs = backends.needs(job_of(name, root), RANKS)
    held, passing = needs.on_a_worker(RANKS)
    updates = [sum(roles.values()) for moment, roles in passing.items() if moment.startswith("updating")]
    return {"loading": needs.loading, "held": sum(held.values()), "peak": sum(held.values()) + max(updates)}


def table(rows: dict[str, Any]) -> str:
    """Planned beside measured, in MB."""
    lines = [
        "| run | peak: planned | measured | ratio | held: planned | measured | loading: planned | measured |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in rows.items():
        plan, real = row["planned"], row["measured"]
        cells = [f"{plan['peak'] / 1e6:.0f} | {real['peak'] / 1e6:.0f} | {plan['peak'] / real['peak']:.3f}"]
        cells += [f"{plan[key] / 1e6:.0f} | {real[key] / 1e6:.0f}" for key in ("held", "loading")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """See the module."""
    data = PAGE.with_suffix(".json")
    rows: dict[str, Any] = json.loads(data.read_text()) if data.is_file() else {}
    if "--page" not in words:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            make_models(root)
            names = [*(words or CASES)]
            ranks = torch.multiprocessing.spawn(measure, (names, folder), nprocs=RANKS, join=False)
            plans = {name: planned(name, root) for name in names}  # meanwhile
            print(json.dumps(plans), flush=True)
            while not ranks.join():
                pass
            for name, real in json.loads((root / "measured.json").read_text()).items():
                rows[name] = {"planned": plans[name], "measured": real}
                print(table({name: rows[name]}).splitlines()[-1], flush=True)
            data.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    page = re.sub(r"(?s)(<!-- table -->\n).*?(\n?<!-- end -->)", rf"\g<1>{table(rows)}\g<2>", page)
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
