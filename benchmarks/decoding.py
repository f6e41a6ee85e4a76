"""Decoding alone: Plaudit's generator against Hugging Face's ``generate`` on the same prompts and forced lengths.

    python benchmarks/decoding.py [--models tiny,smollm2] [--quick] [--device auto]

All in one process, in turns. ``autocast`` is how TRL's default samples (fp32 weights under bf16 autocast), ``fp32`` and
``bf16`` are plain weights of that type. Where bf16 is emulated only ``fp32`` is measured, unless --ways asks for more.
4 prompts, 8 responses each, of up to 64 tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from against_trl import add_common, listed, machine, native_bf16
from forced import ForcedLength
from plan import Lengths, Plan, Shape, make_plan
from plaudit_side import force_lengths
from subjects import subject, words_of
from transformers import AutoModelForCausalLM, GenerationConfig, LogitsProcessorList

from plaudit.backends.local.precision import product_dtype
from plaudit.config.sections import ComputeSection, SamplingSection
from plaudit.generation.native import NativeGenerator
from plaudit.models.files.load import load_causal_lm, load_tokenizer
from plaudit.models.policy import Policy
from plaudit.records import Prompt
from plaudit.runtime import TokenPrompt

WAYS = ("autocast", "fp32", "bf16")
Decode = Callable[[int], int]
"""Runs the 0-based round; how many tokens it wrote."""


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--ways", type=listed(WAYS), default=[], help="of generate; default: what may be fastest here"
    )
    given = add_common(parser).parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.threads:
        torch.set_num_threads(given.threads)
    rounds = given.rounds or (2 if given.quick else 8)
    facts, rows = machine(given), []
    for model in given.models:
        for lengths in given.lengths:
            rows.append({"model": model, "lengths": lengths} | measure(given, model, lengths, rounds))
            text = json.dumps({"machine": facts, "rows": rows}, indent=1)
            (given.out / "decoding.json").write_text(text + "\n", encoding="utf-8")
    table = markdown(rows)
    (given.out / "decoding.md").write_text(table + "\n", encoding="utf-8")
    print(table)


def measure(given: argparse.Namespace, model: str, lengths: Lengths, rounds: int) -> dict[str, Any]:
    """Median tokens per second of each way, and the median ratio of ours to it over the rounds."""
    path = subject(model, given.out / "models", given.smollm2)
    plan = make_plan("grpo", path, words_of(path), Shape(4, 8), lengths=lengths, steps=rounds + 1)
    device = torch.device(given.device)
    ways = {"plaudit": plaudit_decode(plan, device)} | hugging_face(
        plan, device, given.ways or fast_ways(device)
    )
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for step in range(rounds + 1):
        for name, decode in ways.items():
            began = time.perf_counter()
            tokens = decode(step)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - began)
            assert tokens == plan.tokens(step), (
                f"{name} wrote {tokens} tokens, the plan has {plan.tokens(step)}"
            )
    timed = {name: times[1:] for name, times in seconds.items()}
    rates = {
        name: statistics.median(plan.tokens(i + 1) / s for i, s in enumerate(times))
        for name, times in timed.items()
    }
    ratios = {
        name: statistics.median(t / o for o, t in zip(timed["plaudit"], times, strict=True))
        for name, times in timed.items()
    }
    return {"tokens_per_second": rates, "ratios": ratios, "seconds": timed}


def plaudit_decode(plan: Plan, device: torch.device) -> Decode:
    """The generator as the RL stage builds it, default precision."""
    tokenizer = load_tokenizer(plan.model)
    policy = Policy(load_causal_lm(plan.model, tokenizer=tokenizer).to(device))
    precision = product_dtype(ComputeSection(device=str(device)), device)
    generator = NativeGenerator(policy.lm, tokenizer, (tokenizer.eos_token_id,), precision=precision)
    records = [Prompt(f"r{i}", row.text) for i, row in enumerate(plan.rows)]
    force_lengths(plan, records)
    prompts = [TokenPrompt(p, tuple(r.prompt)) for p, r in zip(records, plan.rows, strict=True)]
    sampling = SamplingSection(max_new_tokens=plan.max_new_tokens)

    def decode(step: int) -> int:
        chosen = prompts[step * plan.per_step : (step + 1) * plan.per_step]
        rollouts = generator.generate(chosen, plan.group, sampling, seed=plan.seed, iteration=step)
        return sum(len(r.response_ids) for r in rollouts)

    return decode


def fast_ways(device: torch.device) -> list[str]:
    """All, or without native bf16 the one that is not emulated."""
    return list(WAYS) if device.type == "cuda" or native_bf16() else ["fp32"]


def hugging_face(plan: Plan, device: torch.device, names: Sequence[str]) -> dict[str, Decode]:
    """``generate`` with weights and autocast of the usual kinds."""
    types = {"bf16": torch.bfloat16}
    weights = {types.get(name, torch.float32) for name in names}
    lms = {
        dtype: AutoModelForCausalLM.from_pretrained(plan.model, dtype=dtype).to(device).eval()
        for dtype in weights
    }
    return {
        name: generate(
            plan, lms[types.get(name, torch.float32)], torch.bfloat16 if name == "autocast" else None
        )
        for name in names
    }


def generate(plan: Plan, lm: Any, cast: torch.dtype | None) -> Decode:
    """One way."""
    end, pad = int(lm.generation_config.eos_token_id), int(lm.config.pad_token_id)

    @torch.no_grad()
    def decode(step: int) -> int:
        rows = plan.step_rows(step)
        lengths = [n for row in rows for n in row.lengths]
        ids, mask = left_padded([row.prompt for row in rows for _ in row.lengths], pad)
        processor = ForcedLength(lengths, ids.shape[1], end, lm.device)
        config = GenerationConfig(
            max_new_tokens=plan.max_new_tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            pad_token_id=pad, eos_token_id=end,
        )  # fmt: skip
        with torch.autocast(lm.device.type, cast) if cast else contextlib.nullcontext():
            lm.generate(
                input_ids=ids.to(lm.device), attention_mask=mask.to(lm.device), generation_config=config,
                logits_processor=LogitsProcessorList([processor]),
            )  # fmt: skip
        return sum(lengths)

    return decode


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Tokens per second, and in brackets how much faster ours is."""
    names = sorted({name for row in rows for name in row["ratios"]} - {"plaudit"})
    lines = [f"| model | lengths | Plaudit, tok/s | {' | '.join(f'generate, {n}' for n in names)} |"]
    lines.append("|---" * (3 + len(names)) + "|")
    for row in rows:
        rates, ratios = row["tokens_per_second"], row["ratios"]
        cells = [row["model"], row["lengths"], f"{rates['plaudit']:.4g}"]
        cells += [f"{rates[n]:.4g} (**{ratios[n]:.2f}**)" if n in rates else "-" for n in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
