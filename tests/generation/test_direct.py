"""The step that is written out: which models take it, that it equals theirs, its calls, and when weights are packed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from plaudit.config.sections import LoraSection, SamplingSection
from plaudit.generation import direct
from plaudit.generation.cache import SlotCache
from plaudit.generation.decoder import Decoder
from plaudit.generation.direct import Products
from plaudit.generation.native import NativeGenerator
from plaudit.models.lora import add_lora
from plaudit.models.tiny import tiny_lm

WARM = SamplingSection(temperature=0.8, max_new_tokens=20)


class Calls(TorchDispatchMode):
    """Counts the operations that PyTorch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def drawn(generator: NativeGenerator, prompts: Any, n: int = 3) -> list[Any]:
    return generator.generate(prompts(), n, WARM, seed=0, iteration=0)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_it_draws_what_the_models_own_step_draws(
    kind: str, tokenizer: Any, models: Any, prompts: Any
) -> None:
    generator = NativeGenerator(models[kind], tokenizer, ())
    written_out = drawn(generator, prompts)
    assert generator._decoder._has_direct
    generator._decoder._has_direct = False
    own = drawn(generator, prompts)
    assert [r.response_ids for r in written_out] == [r.response_ids for r in own]
    for a, b in zip(written_out, own, strict=True):
        torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "gemma"])
def test_models_of_another_form_keep_their_own_step(
    kind: str, tokenizer: Any, models: Any, prompts: Any
) -> None:
    # Gemma has all the parts of a Llama, and its norms multiply by 1 + weight: only the trial tells.
    generator = NativeGenerator(models[kind], tokenizer, ())
    drawn(generator, prompts)
    assert not generator._decoder._has_direct


def test_packed_weights_draw_the_same(
    tokenizer: Any, models: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of PyTorch has no oneDNN")
    plain = drawn(NativeGenerator(models["qwen2"], tokenizer, ()), prompts)
    monkeypatch.setattr(direct, "PACKED_FROM_BYTES", 0)
    monkeypatch.setattr(direct, "PACKED_FROM_TOKENS", 1)
    with Calls() as calls:
        again = drawn(NativeGenerator(models["qwen2"], tokenizer, ()), prompts)
    packed = calls.counts["_reorder_linear_weight"]
    assert packed == 4 * 2 + 1, "four products in each of two layers, and the head, once for the whole generation"
    assert [r.response_ids for r in again] == [r.response_ids for r in plain]


@pytest.mark.parametrize("packed", [False, True])
def test_adapters_count_and_stay_beside_their_weights_unless_these_are_packed(
    packed: bool, tokenizer: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny_lm("llama", tokenizer, hidden=32, layers=2, seed=1, scale=0.12)
    lm = add_lora(plain, LoraSection(rank=2, alpha=4), task="causal")
    with torch.no_grad():
        for name, p in lm.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.3)
    generator = NativeGenerator(lm, tokenizer, ())
    generator.generate(prompts(), 1, WARM, seed=0, iteration=0)
    generator._decoder._has_direct = False
    own = drawn(generator, prompts)
    if packed:
        if not torch.backends.mkldnn.is_available():
            pytest.skip("this build of PyTorch has no oneDNN")
        monkeypatch.setattr(direct, "PACKED_FROM_BYTES", 0)
        monkeypatch.setattr(direct, "PACKED_FROM_TOKENS", 1)
    merges: list[Any] = []
    whole = direct.weight_of
    monkeypatch.setattr(direct, "weight_of", lambda layer: (merges.append(layer), whole(layer))[1])
    generator._decoder._has_direct = True
    written_out = drawn(generator, prompts)
    assert [r.response_ids for r in written_out] == [r.response_ids for r in own]
    for a, b in zip(written_out, own, strict=True):
        torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), rtol=0, atol=1e-5)
    assert len([layer for layer in merges if hasattr(layer, "lora_A")]) == (2 * 7 if packed else 0)


def test_weights_are_packed_where_it_pays() -> None:
    model = torch.nn.Linear(4096, 4096)  # 64 MiB
    small = torch.nn.Linear(16, 16)
    fp32 = torch.float32
    assert Products.suited(model, fp32, rows=8, tokens=64).packed == torch.backends.mkldnn.is_available()
    assert not Products.suited(model, fp32, rows=1, tokens=64).packed
    assert not Products.suited(model, fp32, rows=8, tokens=8).packed
    assert not Products.suited(small, fp32, rows=8, tokens=64).packed
    elsewhere = torch.nn.Linear(4096, 4096, device="meta")
    assert not Products.suited(elsewhere, fp32, rows=8, tokens=64).packed, "oneDNN is for CPUs"


def test_trained_weights_count_at_once(tokenizer: Any, prompts: Any) -> None:
    lm = tiny_lm("llama", tokenizer, hidden=32, layers=2, seed=1, scale=0.12)
    generator = NativeGenerator(lm, tokenizer, ())
    before = drawn(generator, prompts)
    with torch.no_grad():
        for p in lm.parameters():
            p.mul_(1.5)
    after = drawn(generator, prompts)
    fresh = drawn(NativeGenerator(lm, tokenizer, ()), prompts)
    assert [r.response_ids for r in after] == [r.response_ids for r in fresh]
    assert [r.response_ids for r in after] != [r.response_ids for r in before]


def test_a_layer_asks_for_fewer_operations(tokenizer: Any) -> None:
    found: dict[tuple[int, bool], int] = {}
    for layers in (2, 4):
        decoder = Decoder(tiny_lm("llama", tokenizer, hidden=32, layers=layers))
        for written_out in (True, False):
            with decoder.ready():
                if not written_out:
                    decoder._direct = None
                cache = SlotCache(2, 8)
                cache.admit(decoder.prefill([[5, 6, 7]] * 2).cache, torch.arange(2), 0)
                with Calls() as calls:
                    decoder.step(torch.tensor([5, 6]), [3, 3], cache)
            found[layers, written_out] = calls.counts.total()
    own, direct_ = ((found[4, way] - found[2, way]) / 2 for way in (False, True))
    assert direct_ <= 0.75 * own, "operations of a layer"
