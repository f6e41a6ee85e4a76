"""Decoding in few fixed shapes: the same responses, and a recording only where it is faithful."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from plaudit.config.sections import SamplingSection
from plaudit.generation import fixed_shapes
from plaudit.generation.fixed_shapes import CudaGraphs, FixedShapes, Run
from plaudit.generation.native import NativeGenerator

WARM = SamplingSection(temperature=0.8, max_new_tokens=90)


class Recorder:
    """Runs a step as it is, and counts the shapes it is given."""

    def __init__(self) -> None:
        self.shapes = 0

    def __call__(self, run: Run) -> Run:
        self.shapes += 1
        return run


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "qwen3", "gemma"])
def test_fixed_shapes_do_not_change_responses(
    kind: str, models: Any, tokenizer: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = prompts(8)
    found = NativeGenerator(models[kind], tokenizer, ()).generate(batch, 1, WARM, seed=9, iteration=0)
    ends = tuple(sorted({i for r in found for i in r.response_ids[30:34]}))[:4]
    plain = NativeGenerator(models[kind], tokenizer, ends, rows=16)
    expected = plain.generate(batch, 4, WARM, seed=2, iteration=1)
    recorder = Recorder()
    monkeypatch.setattr(plain, "_recorder", lambda: recorder)
    fixed = plain.generate(
        batch, 4, WARM, seed=2, iteration=1
    )  # 32 responses in 16 rows: some leave, some come
    assert len({len(r.response_ids) for r in expected}) > 5, "lengths should vary"
    for mine, theirs in zip(fixed, expected, strict=True):
        assert mine.response_ids == theirs.response_ids
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)
    assert 2 <= recorder.shapes <= 6, "rows 16, 8, 4; 64 or all columns"


def test_shapes_are_few_and_hold_what_they_must() -> None:
    def steps(rows: int, capacity: int) -> FixedShapes:
        return FixedShapes(lambda *_: torch.zeros(1), None, rows, capacity, torch.device("cpu"), Recorder())  # type: ignore[arg-type]

    for rows, capacity in ((64, 1024), (48, 200), (5, 40), (1, 9)):
        plan = steps(rows, capacity)
        seen = set()
        for live in range(1, rows + 1):
            for width in range(1, capacity + 1):
                shape = plan.shape(live, width)
                assert live <= shape[0] <= rows and width <= shape[1] <= capacity
                seen.add(shape)
        assert len({r for r, _ in seen}) <= 5 and len({w for _, w in seen}) <= 8
    assert steps(64, 1024).shape(17, 129) == (32, 256)
    assert steps(64, 1024).shape(1, 1) == (4, 128)


@pytest.mark.parametrize("fault", ["cannot", "differs"])
def test_a_step_that_cannot_be_recorded_runs_as_it_is(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_shapes.torch.cuda, "graph_pool_handle", lambda: None)

    def recorded(_: CudaGraphs, run: Run) -> tuple[Run, bool]:
        if fault == "cannot":
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return (lambda: torch.ones(1)), False

    monkeypatch.setattr(CudaGraphs, "_recorded", recorded)
    record = CudaGraphs()

    def run() -> torch.Tensor:
        return torch.zeros(1)

    with pytest.warns(UserWarning, match=r"without CUDA graphs: .*compute\.cuda_graphs = false"):
        assert record(run) is run
    assert record(run) is run, "tried once; no second warning"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "qwen3", "gemma"])
def test_graphs_give_what_steps_give(
    kind: str, precision: torch.dtype, models: Any, tokenizer: Any, prompts: Any
) -> None:
    lm = copy.deepcopy(models[kind]).cuda()
    batch = prompts(8)
    both = [
        NativeGenerator(lm, tokenizer, (5, 6, 7), rows=16, precision=precision, cuda_graphs=graphs).generate(
            batch, 4, WARM, seed=2, iteration=1
        )
        for graphs in (False, True)
    ]
    same = sum(a.response_ids == b.response_ids for a, b in zip(*both, strict=True))
    assert same == 32 if precision == torch.float32 else same >= 24, "bf16 rounds otherwise in other shapes"
