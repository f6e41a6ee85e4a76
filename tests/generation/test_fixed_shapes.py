"""Decoding in few fixed shapes: the same responses, and a recording only where it is faithful."""

from __future__ import annotations

import contextlib
import copy
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from plaudit.config.sections import SamplingSection
from plaudit.generation import batches, fixed_shapes
from plaudit.generation.cache import SlotCache
from plaudit.generation.decoder import Decoder
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
def test_fixed_shapes_do_not_change_responses(kind: str, models: Any, tokenizer: Any, prompts: Any) -> None:
    batch = prompts(8)
    found = NativeGenerator(models[kind], tokenizer, ()).generate(batch, 1, WARM, seed=9, iteration=0)
    ends = tuple(sorted({i for r in found for i in r.response_ids[30:34]}))[:4]
    plain = NativeGenerator(models[kind], tokenizer, ends, rows=16)
    expected = plain.generate(batch, 4, WARM, seed=2, iteration=1)
    recorder = Recorder()
    fixed = NativeGenerator(models[kind], tokenizer, ends, rows=16, record=recorder).generate(
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


def test_a_shape_is_recorded_when_it_has_come_a_few_times() -> None:
    recorder = Recorder()
    cache = SlotCache(8, 200)
    plan = FixedShapes(
        lambda tokens, *_: tokens[:, None].float(), cache, 8, 200, torch.device("cpu"), recorder
    )
    for k in range(6):
        states = plan.step(torch.arange(3), [5 + k] * 3)
        assert states.tolist() == [[0.0], [1.0], [2.0]]
        assert recorder.shapes == (1 if k >= 4 else 0)
    plan.step(torch.arange(3), [150] * 3)
    assert recorder.shapes == 1, "another shape, seen once"


class Gpu:
    """Stands in for `torch.cuda`: a recording notes the step; each fault is what its replay, or it, does wrong."""

    def __init__(self, fault: str) -> None:
        self.fault, self.is_strict, self.replays = fault, 0, 0
        self.entered: list[Any] = []

    def graph_pool_handle(self) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        assert name in ("device", "stream", "Stream", "current_stream", "CUDAGraph")
        return {"device": self.within, "stream": self.within, "CUDAGraph": lambda: self}.get(
            name, lambda *_: self
        )

    def wait_stream(self, other: Any) -> None:
        pass

    @contextlib.contextmanager
    def within(self, what: Any) -> Iterator[None]:
        self.entered.append(what)
        yield
        if self.fault != "cannot":
            self.entered.pop()

    def get_sync_debug_mode(self) -> int:
        return self.is_strict

    def set_sync_debug_mode(self, mode: Any) -> None:
        self.is_strict = mode

    @contextlib.contextmanager
    def graph(self, graph: Any, pool: Any, stream: Any) -> Iterator[None]:
        assert self.is_strict == 0, "only the step before it"
        yield
        if self.fault == "cannot":
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    def replay(self) -> None:
        self.replays += 1
        if self.fault != "empty":
            self.states.fill_(1.0 if not self.fault else 2.0)


@pytest.mark.parametrize("fault", ["", "cannot", "differs", "empty", "waits"])
def test_a_step_is_recorded_or_runs_as_it_is(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(fault)

    def step() -> torch.Tensor:
        if fault == "waits" and gpu.is_strict == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        gpu.states = torch.ones(1)
        return gpu.states

    monkeypatch.setattr(fixed_shapes.torch, "cuda", gpu)
    fixed_shapes._recording_stream.cache_clear()
    record = CudaGraphs(torch.device("cuda:1"))
    if not fault:
        assert record(step)().item() == 1 and gpu.replays == 2 and record.works
        return
    with pytest.warns(UserWarning, match=r"without CUDA graphs: .*compute\.packing = false"):
        assert record(step) is step
    assert gpu.is_strict == 0, "as before"
    assert record(step) is step and not record.works, "tried once; no second warning"


def test_what_cannot_be_recorded_is_not_tried_at_the_next_generation(
    models: Any, tokenizer: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixed_shapes.torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(Decoder, "device", property(lambda _: torch.device("cuda:0")))
    generator = NativeGenerator(models["llama"], tokenizer, ())
    first, second = generator._recorder(), generator._recorder()
    assert isinstance(first, CudaGraphs) and isinstance(second, CudaGraphs) and first is not second
    second.works = False
    assert generator._recorder() is None
    assert NativeGenerator(models["llama"], tokenizer, (), cuda_graphs=False)._recorder() is None


def test_steps_that_run_as_they_are_leave_no_cache_behind(models: Any, tokenizer: Any, prompts: Any) -> None:
    generator = NativeGenerator(models["llama"], tokenizer, (), record=lambda step: step)
    caches: list[weakref.ref[Any]] = []

    class Watched(SlotCache):
        def __init__(self, rows: int, capacity: int) -> None:
            super().__init__(rows, capacity)
            caches.append(weakref.ref(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "SlotCache", Watched)
        gc.disable()
        try:
            generator.generate(prompts(4), 2, SamplingSection(max_new_tokens=6), seed=0, iteration=0)
        finally:
            gc.enable()
    assert len(caches) == 1 and caches[0]() is None, (
        "gigabytes on a GPU, and its want of memory collects no garbage"
    )


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


@pytest.mark.gpu
def test_a_step_that_waits_leaves_everything_as_it_was() -> None:
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    values = torch.ones(4, device=device)

    def waits() -> torch.Tensor:
        return values * values.sum().item()

    before = torch.cuda.current_stream(device)
    record = CudaGraphs(device)
    with pytest.warns(UserWarning, match="synchronizing"):
        assert record(waits) is waits
    assert torch.cuda.current_stream(device) == before and torch.cuda.get_sync_debug_mode() == 0
    torch.cuda.empty_cache()  # fails where a recording was begun and did not end well
    assert CudaGraphs(device)(lambda: values * 2)().tolist() == [2.0] * 4


@pytest.mark.gpu
@pytest.mark.skipif("torch.cuda.device_count() < 2")
def test_a_model_need_not_be_on_the_current_device() -> None:
    values = torch.ones(4, device="cuda:1")
    replay = CudaGraphs(values.device)(lambda: values * 2)
    values.fill_(3.0)
    assert replay().tolist() == [6.0] * 4
