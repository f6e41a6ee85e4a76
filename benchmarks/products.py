"""All weight products of a decoding step, and of an update, by precision, layout of the weights and size of the model.

    python benchmarks/products.py [--threads 1] [--rounds 10] [--save docs/why/products.json]

Every layer has weights of its own, so a large model's come from memory as they do in a run. The ways take turns;
figures are medians of processor milliseconds. `generation/direct.py` decides by what this measures: run it on a
processor of another kind and add its results to the file. bf16 only where the processor has it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from against_trl import flags, native_bf16
from torch import Tensor
from torch.nn.functional import linear


@dataclass(frozen=True, slots=True)
class Form:
    """Sizes of a Llama-shaped model."""

    layers: int
    width: int
    inner: int
    keys: int
    """Width of all keys together; values have the same."""
    vocabulary: int

    def layer(self) -> list[tuple[int, int]]:
        """Outputs and inputs of a layer's products, those with the same input side by side."""
        return [
            (self.width + 2 * self.keys, self.width), (self.width, self.width), (2 * self.inner, self.width),
            (self.width, self.inner),
        ]  # fmt: skip


MODELS = {
    "64 wide": Form(2, 64, 128, 64, 512),
    "256 wide (tiny)": Form(6, 256, 704, 256, 4096),
    "576 wide (SmolLM2)": Form(30, 576, 1536, 192, 49152),
}
ROWS = (1, 2, 4, 8, 16, 32, 64, 512)
UPDATE = 512
"""Rows of an update: the weights are not laid out for these."""

Way = tuple[Callable[[Tensor, Any], Tensor], list[Any], torch.dtype]


def ways_of(form: Form) -> tuple[dict[str, Way], dict[str, float]]:
    """Each way's product and weights; and the milliseconds that laying them out took."""
    shapes = form.layer() * form.layers + [(form.vocabulary, form.width)]
    weights = [torch.randn(shape) * 0.02 for shape in shapes]
    ops = torch.ops.mkldnn

    def packed(x: Tensor, weight: Any) -> Tensor:
        return ops._linear_pointwise(x, weight, None, "none", [], "")

    found: dict[str, Way] = {}
    laid: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if dtype == torch.bfloat16 and not native_bf16():
            continue
        cast = [w.to(dtype) for w in weights]
        found[name] = (linear, cast, dtype)
        began = time.process_time()
        found[f"{name} laid out"] = (packed, [ops._reorder_linear_weight(w, 32) for w in cast], dtype)
        laid[f"{name} laid out"] = 1e3 * (time.process_time() - began)
    return found, laid


def measure(form: Form, rounds: int) -> dict[str, Any]:
    """Milliseconds by way and rows."""
    found, laid = ways_of(form)
    inputs = [i for _, i in form.layer()] * form.layers + [form.width]
    result: dict[str, dict[str, float]] = {way: {} for way in found}
    for rows in ROWS:
        taken: dict[str, list[float]] = {way: [] for way in found}
        for turn in range(rounds + 1):
            for way in found if turn % 2 else reversed(found):
                product, weights, dtype = found[way]
                if rows == UPDATE and "laid out" in way:
                    continue
                states = {width: torch.randn(rows, width).to(dtype) for width in set(inputs)}
                began = time.process_time()
                for width, weight in zip(inputs, weights, strict=True):
                    product(states[width], weight)
                taken[way].append(1e3 * (time.process_time() - began))
        for way, times in taken.items():
            if times[1:]:
                result[way][str(rows)] = round(statistics.median(times[1:]), 3)
    return {"ms": result, "ms to lay out": {way: round(ms, 1) for way, ms in laid.items()}}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--save", type=Path, help="a file to which the results of this processor are added")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    results: dict[str, Any] = {}
    with torch.no_grad():
        for name, form in MODELS.items():
            results[name] = measure(form, given.rounds)
            print(name, json.dumps(results[name]), flush=True)
    if given.save is not None:
        known = json.loads(given.save.read_text(encoding="utf-8")) if given.save.is_file() else {}
        known[", ".join(flags()) or "other"] = {"threads": given.threads, "torch": torch.__version__, "models": results}
        given.save.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
