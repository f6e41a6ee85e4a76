"""bf16 products: every weight is cast once a step or generation, and gradients stay close to those of fp32."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from plaudit.algorithms.sft import SFT
from plaudit.backends.local.learner import LocalLearner
from plaudit.backends.local.precision import chosen_precision
from plaudit.config.sections import (
    CheckpointSection,
    ComputeSection,
    LoraSection,
    MismatchSection,
    OptimizerSection,
    SamplingSection,
)
from plaudit.experience import Experience
from plaudit.functional.precision import without_gradients
from plaudit.generation.native import NativeGenerator
from plaudit.jobs.sft import SFTJob
from plaudit.models.lora import add_lora
from plaudit.models.policy import Policy
from plaudit.models.tiny import tiny_lm, tiny_tokenizer
from plaudit.records import Prompt
from plaudit.runtime import TokenPrompt
from plaudit.stages.session import ready

WORDS = "the cat sat on a mat and saw dogs run far away from big old trees near water"
CPU = torch.device("cpu")


class Casts(TorchDispatchMode):
    """Counts how often each of some tensors is cast to bf16."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.names = {tensor.data_ptr(): name for name, tensor in tensors.items()}
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.counts[self.names.get(args[0].data_ptr(), "other")] += 1
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer([WORDS], 64)


def policy(tokenizer: Any, rank: int = 0, **options: Any) -> Policy:
    lm = tiny_lm("llama", tokenizer, hidden=32, layers=2)
    return Policy(add_lora(lm, LoraSection(rank=rank, alpha=4) if rank else LoraSection(), task="causal"), **options)


def rows(count: int = 6, width: int = 9) -> Experience:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([9, 8, 5, 9, 4, 6])[:count]
    attention = torch.arange(width)[None] < lengths[:, None]
    batch = Experience(
        tokens=torch.randint(4, 24, (count, width), generator=generator) * attention,
        attention_mask=attention,
        response_mask=attention & (torch.arange(width) > 1),
    )
    return SFT().weights(batch)


def learner(model: Policy, precision: str, budget: int = 10_000) -> LocalLearner:
    compute = ComputeSection(device="cpu", precision=precision, tokens_per_microbatch=budget)
    return LocalLearner(model, OptimizerSection(lr=1e-9, max_grad_norm=0.0), compute, total_steps=3)


def gradients(model: Policy, precision: str, budget: int = 10_000) -> torch.Tensor:
    """[weights] of one batch."""
    one = learner(model, precision, budget)
    one.optimizer.zero_grad = lambda **_: None  # type: ignore[method-assign]
    one.update(rows(), SFT().loss)
    return torch.cat([p.grad.flatten() for p in one.parameters.values() if p.grad is not None])


def test_a_step_of_several_microbatches_casts_each_weight_once(tokenizer: Any) -> None:
    one = learner(policy(tokenizer), "bf16", budget=16)
    with Casts(dict(one.module.named_parameters())) as casts:
        one.update(rows(), SFT().loss)
    del casts.counts["other"]
    assert len(casts.counts) == 2 * 7 + 1, "seven matrices in each of two layers; the head, for its gradient"
    assert set(casts.counts.values()) == {1}
    with Casts(dict(one.module.named_parameters())) as again:
        one.update(rows(), SFT().loss)
    del again.counts["other"]
    assert again.counts == casts.counts, "the next step has new weights and casts them anew"


@pytest.mark.parametrize("rank", [0, 2])
def test_a_generation_casts_each_weight_once_frozen_or_not(tokenizer: Any, rank: int) -> None:
    lm = policy(tokenizer, rank).lm
    asked = {name for name, p in lm.named_parameters() if p.requires_grad}
    generator = NativeGenerator(lm, tokenizer, (), precision=torch.bfloat16)
    prompts = [TokenPrompt(Prompt("a", "a"), (5, 6, 7)), TokenPrompt(Prompt("b", "b"), (8, 9))]
    with Casts(dict(lm.named_parameters())) as casts:
        generator.generate(prompts, 2, SamplingSection(max_new_tokens=6), seed=0, iteration=0)
    layers = Counter({name: n for name, n in casts.counts.items() if "layers" in name})
    assert len(layers) == 2 * 7 * (3 if rank else 1)
    # Once to read prompts, under autocast, and once for the steps.
    assert set(layers.values()) == {2}
    assert {name for name, p in lm.named_parameters() if p.requires_grad} == asked


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("packing", [True, False])
def test_gradients_in_bf16_are_close_to_those_of_plain_padded_fp32(
    tokenizer: Any, rank: int, packing: bool
) -> None:
    plain = gradients(policy(tokenizer, rank, packing=False), "fp32")
    for budget in (10_000, 16):
        fast = gradients(policy(tokenizer, rank, packing=packing), "bf16", budget)
        assert fast.dtype == torch.float32
        assert float((fast - plain).norm() / plain.norm()) < 0.02, "bf16 has 8 bits: 2 ** -8 a product"


class Kinds(TorchDispatchMode):
    """The types in which attention and products are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.attention: set[torch.dtype] = set()
        self.products: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if "scaled_dot_product" in name:
            self.attention.add(args[0].dtype)
        if name in ("mm", "addmm"):
            self.products[args[0].dtype] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("packing", [True, False])
def test_attention_and_logits_are_fp32_and_all_other_products_are_bf16(tokenizer: Any, packing: bool) -> None:
    one = learner(policy(tokenizer, packing=packing), "bf16")
    with Kinds() as kinds:
        one.update(rows(), SFT().loss)
    assert kinds.attention == {torch.float32}
    assert kinds.products[torch.float32] == 1, "the head's forward pass"
    assert kinds.products[torch.bfloat16] == 3 * 2 * 7 + 2, "three for each matrix of a layer, two for the head"
    with Kinds() as kinds:
        one.read(rows(), "logprobs")
    assert kinds.attention == {torch.float32} and kinds.products[torch.float32] == 1


def test_a_generation_in_bf16_keeps_attention_in_fp32(tokenizer: Any) -> None:
    generator = NativeGenerator(policy(tokenizer).lm, tokenizer, (), precision=torch.bfloat16)
    prompts = [TokenPrompt(Prompt("a", "a"), (5, 6, 7)), TokenPrompt(Prompt("b", "b"), (8, 9))]
    generator.generate(prompts, 1, SamplingSection(max_new_tokens=2), seed=0, iteration=0)
    with Kinds() as kinds:
        generator.generate(prompts, 2, SamplingSection(max_new_tokens=6), seed=0, iteration=0)
    assert kinds.attention == {torch.float32}
    assert kinds.products[torch.float32] == 0, "the head too: its rounding is in the log-probs that are recorded"


def test_padding_on_the_left_is_masked_in_bf16_too(tokenizer: Any) -> None:
    model = policy(tokenizer, packing=False)
    batch = rows(2)
    left = batch.replace(
        **{name: getattr(batch, name).flip(-1) for name in ("attention_mask", "response_mask", "tokens")}
    )
    left = left.replace(response_mask=left.response_mask & (torch.arange(9) > 2))
    [exact] = learner(model, "fp32").read(left, "logprobs")
    [half] = learner(model, "bf16").read(left, "logprobs")
    torch.testing.assert_close(half, exact, rtol=0, atol=0.02)


def test_flags_are_as_before_after_an_error(tokenizer: Any) -> None:
    model = policy(tokenizer, 2)
    before = [p.requires_grad for p in model.parameters()]
    with pytest.raises(RuntimeError), without_gradients(model, torch.bfloat16, CPU):
        raise RuntimeError
    assert [p.requires_grad for p in model.parameters()] == before


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plaudit.backends.local.precision.native_bf16", lambda: True)


def saved(tokenizer: Any, path: Any, hidden: int) -> str:
    tiny_lm("llama", tokenizer, hidden=hidden, layers=1).save_pretrained(path)
    return str(path)


@pytest.mark.parametrize(("hidden", "expected"), [(256, "bf16"), (64, "fp32")])
def test_auto_is_bf16_for_large_models_on_a_processor_that_has_it(
    tokenizer: Any, tmp_path: Any, native: None, hidden: int, expected: str
) -> None:
    chosen, why = chosen_precision("cpu", saved(tokenizer, tmp_path, hidden))
    assert chosen == expected and f"{hidden} wide" in why


def test_auto_is_fp32_on_other_processors_and_for_unknown_models(
    tokenizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plaudit.backends.local.precision.native_bf16", lambda: False)
    assert chosen_precision("cpu", saved(tokenizer, tmp_path, 256))[0] == "fp32"
    monkeypatch.setattr("plaudit.backends.local.precision.native_bf16", lambda: True)
    assert chosen_precision("cpu", str(tmp_path / "nothing"))[0] == "fp32"


def test_a_run_says_its_precision_and_keeps_it_when_it_goes_on(
    tokenizer: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = saved(tokenizer, tmp_path / "model", 256)
    job = SFTJob(model=where, out=str(tmp_path / "run"))
    for has, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr("plaudit.backends.local.precision.native_bf16", lambda has=has: has)
        assert ready(job).compute.precision == expected
        assert f"precision  {expected}, " in capsys.readouterr().out
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text('{"topology": {"precision": "bf16"}}')
    again = job.model_copy(update={"checkpoint": CheckpointSection(resume=True)})
    assert ready(again).compute.precision == "bf16", "although this processor would choose fp32"
    assert "as this run began" in capsys.readouterr().out
    plain = again.model_copy(update={"compute": ComputeSection(precision="fp32")})
    assert ready(plain).compute.precision == "fp32", "what is asked for counts"


def test_the_limit_for_log_probs_of_the_sampler_follows_the_precision() -> None:
    limits = [MismatchSection().with_products(p).reuse_limit for p in ("fp32", "bf16")]
    assert limits == [1e-4, 0.2] and MismatchSection(reuse_below=0.0).with_products("bf16").reuse_limit == 0
