"""The native engine against Hugging Face's, a plain forward pass, and itself in other company."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from plaudit.config.sections import SamplingSection
from plaudit.errors import ConfigError, DataError, ModelError
from plaudit.generation.decoder import Decoder
from plaudit.generation.native import NativeGenerator
from plaudit.records import Prompt, Rollout
from plaudit.runtime import TokenPrompt

KINDS = ("gpt2", "llama", "qwen2", "qwen3", "gemma")
GREEDY = SamplingSection(temperature=1e-5, max_new_tokens=16)
WARM = SamplingSection(temperature=0.8, max_new_tokens=20)


def ends_of(rollouts: list[Rollout], take: int = 6) -> tuple[int, ...]:
    """Tokens that come up, to serve as end tokens so that lengths vary."""
    seen = [i for r in rollouts for i in r.response_ids[3:]]
    return tuple(sorted(set(seen), key=lambda i: (-seen.count(i), i))[:take])


@pytest.fixture(params=KINDS)
def lm(request: Any, models: dict[str, Any]) -> Any:
    return models[request.param]


@pytest.fixture
def ends(lm: Any, tokenizer: Any, prompts: Any) -> tuple[int, ...]:
    return ends_of(NativeGenerator(lm, tokenizer, ()).generate(prompts(), 2, WARM, seed=9, iteration=0))


def test_greedy_equals_hugging_face_token_for_token(lm: Any, tokenizer: Any, prompts: Any) -> None:
    endless = NativeGenerator(lm, tokenizer, ()).generate(prompts(), 1, GREEDY, seed=0, iteration=0)
    ends = tuple(sorted({r.response_ids[2 + 3 * i] for i, r in enumerate(endless[:3])}))
    rollouts = NativeGenerator(lm, tokenizer, ends, rows=4).generate(
        prompts(), 2, GREEDY, seed=0, iteration=0
    )
    for r in rollouts:
        ids = torch.tensor([r.prompt_ids])
        theirs = lm.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=GREEDY.max_new_tokens,
            eos_token_id=list(ends),
            pad_token_id=0,
        )[0, len(r.prompt_ids) :]
        assert list(r.response_ids) == theirs.tolist()
    assert len({len(r.response_ids) for r in rollouts}) > 1, "lengths should vary"


def test_recorded_log_probs_equal_a_plain_forward_pass(
    lm: Any, tokenizer: Any, prompts: Any, ends: tuple[int, ...], recompute: Any
) -> None:
    shaped = WARM.model_copy(update={"top_k": 20, "top_p": 0.9, "min_p": 0.01, "min_new_tokens": 4})
    for sampling in (WARM, shaped):
        rollouts = NativeGenerator(lm, tokenizer, ends, rows=5).generate(
            prompts(), 3, sampling, seed=1, iteration=2
        )
        for r in rollouts:
            expected = recompute(lm, r, 0.8).gather(1, torch.tensor(r.response_ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(r.logprobs), expected, rtol=0, atol=1e-5)


def test_a_response_does_not_depend_on_its_company(
    lm: Any, tokenizer: Any, prompts: Any, ends: tuple[int, ...]
) -> None:
    def responses(which: list[TokenPrompt], n: int, rows: int) -> dict[tuple[str, int], Rollout]:
        out = NativeGenerator(lm, tokenizer, ends, rows=rows).generate(which, n, WARM, seed=5, iteration=7)
        return {(r.prompt.id, i % n): r for i, r in enumerate(out)}

    everything = prompts(8)
    together = responses(everything, 4, rows=64)
    others = [responses(everything, 4, rows=3), responses(everything[::-1], 2, rows=5)]
    others += [responses([p], 1, rows=1) for p in everything]
    compared = 0
    for other in others:
        for key, r in other.items():
            assert r.response_ids == together[key].response_ids
            assert r.logprobs == pytest.approx(together[key].logprobs, abs=1e-5)
            compared += 1
    assert compared == 32 + 16 + 8
    assert len({r.response_ids for r in together.values()}) > 25, "responses should differ from each other"


def test_a_prompt_may_have_a_limit_of_its_own(lm: Any, tokenizer: Any, prompts: Any) -> None:
    """It cuts a response where it would have gone on, and changes nothing before."""
    some = prompts(4)
    limits = (0, 1, 3, 99)
    limited = [replace(p, max_new_tokens=most) for p, most in zip(some, limits, strict=True)]
    generator = NativeGenerator(lm, tokenizer, (), rows=3)
    whole = generator.generate(some, 2, WARM, seed=1, iteration=0)
    cut = generator.generate(limited, 2, WARM, seed=1, iteration=0)
    for i, (a, b) in enumerate(zip(whole, cut, strict=True)):
        most = min(limits[i // 2] or WARM.max_new_tokens, WARM.max_new_tokens)
        assert b.response_ids == a.response_ids[:most] and b.finish_reason == "length"


def test_with_a_limit_a_row_may_be_as_long_as_the_model_reads(tokenizer: Any, models: Any) -> None:
    longest = models["gpt2"].config.max_position_embeddings
    assert longest <= 1024, "a small table, or this takes long"
    row = TokenPrompt(Prompt("p", "x"), (5,) * (longest - 1), max_new_tokens=1)
    generator = NativeGenerator(models["gpt2"], tokenizer, ())
    (rollout,) = generator.generate([row], 1, WARM, seed=1, iteration=0)
    assert len(rollout.tokens) == longest
    with pytest.raises(ConfigError, match="can read"):
        generator.generate([replace(row, max_new_tokens=2)], 1, WARM, seed=1, iteration=0)


def test_seed_and_iteration_change_responses_and_nothing_else_is_random(
    tokenizer: Any, models: Any, prompts: Any
) -> None:
    generator = NativeGenerator(models["llama"], tokenizer, ())

    def ids(seed: int, iteration: int) -> list[tuple[int, ...]]:
        torch.manual_seed(torch.seed())
        return [
            r.response_ids for r in generator.generate(prompts(3), 2, WARM, seed=seed, iteration=iteration)
        ]

    assert ids(0, 0) == ids(0, 0)
    assert ids(0, 0) != ids(1, 0) and ids(0, 0) != ids(0, 1)


def test_order_groups_and_fields(tokenizer: Any, models: Any, prompts: Any) -> None:
    generator = NativeGenerator(models["gpt2"], tokenizer, (), rows=4)
    generator.publish(None, 3)
    batch = prompts(5)
    told: list[tuple[int, int]] = []
    rollouts = generator.generate(
        batch, 3, GREEDY, seed=0, iteration=0, progress=lambda a, b: told.append((a, b))
    )
    assert [r.group_id for r in rollouts] == [i // 3 for i in range(15)]
    for i, r in enumerate(rollouts):
        assert r.prompt is batch[i // 3].prompt and r.prompt_ids == batch[i // 3].ids
        assert len(r.response_ids) == len(r.logprobs) == GREEDY.max_new_tokens
        assert r.finish_reason == "length" and r.policy_version == 3 and r.reward is None
        assert r.response == tokenizer.decode(r.response_ids, skip_special_tokens=True)
    assert told[-1] == (15, 15) and told == sorted(told)


def test_end_tokens_stay_in_the_ids_and_out_of_the_text(tokenizer: Any, models: Any, prompts: Any) -> None:
    lm = models["llama"]
    ends = ends_of(NativeGenerator(lm, tokenizer, ()).generate(prompts(), 2, WARM, seed=9, iteration=0))
    rollouts = NativeGenerator(lm, tokenizer, ends).generate(prompts(8), 4, WARM, seed=0, iteration=0)
    stopped = [r for r in rollouts if r.finish_reason == "stop"]
    assert len({r.response_ids[-1] for r in stopped}) > 1, "several end tokens should have been used"
    for r in rollouts:
        assert not set(r.response_ids[:-1]) & set(ends)
        assert (r.response_ids[-1] in ends) == (r.finish_reason == "stop")
        visible = r.response_ids[:-1] if r.finish_reason == "stop" else r.response_ids
        assert r.response == tokenizer.decode(visible)
        if r.finish_reason == "length":
            assert len(r.response_ids) == WARM.max_new_tokens


def test_min_new_tokens(tokenizer: Any, models: Any, prompts: Any) -> None:
    lm = models["llama"]
    ends = tuple(range(4, 60))  # most tokens would end a response
    sampling = SamplingSection(max_new_tokens=12, min_new_tokens=5)
    rollouts = NativeGenerator(lm, tokenizer, ends).generate(prompts(), 3, sampling, seed=0, iteration=0)
    assert min(len(r.response_ids) for r in rollouts) == 6
    assert all(not set(r.response_ids[:5]) & set(ends) for r in rollouts)
    free = SamplingSection(max_new_tokens=12)
    rollouts = NativeGenerator(lm, tokenizer, ends).generate(prompts(), 3, free, seed=0, iteration=0)
    assert min(len(r.response_ids) for r in rollouts) == 1


def test_stop_texts_end_a_response_and_are_cut_from_its_text(
    tokenizer: Any, models: Any, prompts: Any
) -> None:
    generator = NativeGenerator(models["qwen2"], tokenizer, (), rows=4)
    free = generator.generate(prompts(), 2, WARM, seed=0, iteration=0)
    target = next(r for r in free if len(set(r.response_ids)) > 8)
    stop = tokenizer.decode(target.response_ids[6:8])  # spans two tokens
    sampling = WARM.model_copy(update={"stop": ("never seen", stop)})
    for before, after in zip(
        free, generator.generate(prompts(), 2, sampling, seed=0, iteration=0), strict=True
    ):
        cut = before.response.find(stop)
        assert after.response == (before.response[:cut] if cut >= 0 else before.response)
        assert after.finish_reason == ("stop" if cut >= 0 else "length")
        assert before.response_ids[: len(after.response_ids)] == after.response_ids
        if cut >= 0:
            assert tokenizer.decode(after.response_ids).endswith(stop)


def test_the_first_token_follows_the_models_softmax(tokenizer: Any, models: Any, recompute: Any) -> None:
    lm, n = models["llama"], 4000
    prompt = TokenPrompt(Prompt("p", "x"), (5, 9))
    rollouts = NativeGenerator(lm, tokenizer, (), rows=512).generate(
        [prompt], n, SamplingSection(max_new_tokens=1, temperature=0.5), seed=0, iteration=0
    )
    expected = recompute(lm, rollouts[0], 0.5)[0].exp()
    counts = torch.bincount(torch.tensor([r.response_ids[0] for r in rollouts]), minlength=len(expected))
    error = (counts - n * expected).abs() / (n * expected * (1 - expected)).sqrt().clamp(min=1.0)
    assert error.max() < 4.5


def test_each_distinct_prompt_is_read_once(tokenizer: Any, models: Any, prompts: Any) -> None:
    lm = models["llama"]
    read: list[torch.Size] = []
    handle = lm.model.register_forward_hook(
        lambda m, a, kwargs, out: read.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    try:
        generator = NativeGenerator(lm, tokenizer, (), rows=4)
        generator.generate(prompts(1), 1, GREEDY, seed=0, iteration=0)  # the first call also tries the head
        read.clear()
        a, b = prompts(2)
        twin = TokenPrompt(Prompt("twin", "x"), a.ids)
        generator.generate([a, b, twin], 5, GREEDY, seed=0, iteration=0)
    finally:
        handle.remove()
    prefilled = [shape for shape in read if shape[1] > 1]
    assert sum(shape[0] for shape in prefilled) == 2, "two different prompts, fifteen responses"
    assert max(shape[0] for shape in read) <= 4


def test_rows_that_are_done_leave_the_batch(
    tokenizer: Any, models: Any, prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = models["llama"]
    ends = ends_of(NativeGenerator(lm, tokenizer, ()).generate(prompts(), 2, WARM, seed=9, iteration=0))
    generator = NativeGenerator(lm, tokenizer, ends)
    generator.generate(prompts(1), 1, GREEDY, seed=0, iteration=0)
    rows: list[int] = []
    read = Decoder.read
    monkeypatch.setattr(
        Decoder, "read", lambda self, tokens, *rest: rows.append(len(tokens)) or read(self, tokens, *rest)
    )
    rollouts = generator.generate(prompts(), 4, WARM, seed=0, iteration=0)
    assert sum(rows) == sum(len(r.response_ids) - 1 for r in rollouts), "no forward pass for nothing"


def test_adapters_count_and_training_flags_come_back(tokenizer: Any, prompts: Any, recompute: Any) -> None:
    import peft

    from plaudit.models.tiny import tiny_lm

    base = tiny_lm("llama", tokenizer, hidden=32, layers=2, seed=1, scale=0.12)
    plain = NativeGenerator(base, tokenizer, ()).generate(prompts(), 1, WARM, seed=0, iteration=0)
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, lora_dropout=0.5
    )
    lm = peft.get_peft_model(base, config)
    lm.train()
    base.lm_head.eval()
    flags = [m.training for m in lm.modules()]
    adapted = NativeGenerator(lm, tokenizer, ()).generate(prompts(), 1, WARM, seed=0, iteration=0)
    assert [m.training for m in lm.modules()] == flags and not all(flags)
    assert [r.response_ids for r in adapted] != [r.response_ids for r in plain]
    lm.eval()
    for r in adapted:
        expected = recompute(lm, r, 0.8).gather(1, torch.tensor(r.response_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(r.logprobs), expected, rtol=0, atol=1e-5)
    with lm.disable_adapter():
        off = NativeGenerator(lm, tokenizer, ()).generate(prompts(), 1, WARM, seed=0, iteration=0)
    assert [r.response_ids for r in off] == [r.response_ids for r in plain]


@pytest.mark.parametrize("kind", ["gemma2", "granite", "cohere", "mistral"])
def test_other_architectures_with_caps_scales_and_windows(
    kind: str, tokenizer: Any, prompts: Any, recompute: Any
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    extra: dict[str, Any] = {
        "gemma2": {"head_dim": 8, "sliding_window": 64, "final_logit_softcapping": 2.0},
        "granite": {"logits_scaling": 0.25},
        "cohere": {"logit_scale": 4.0},
        "mistral": {"sliding_window": 64},
    }[kind]
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.12,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        **extra,
    )
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config).eval()
    for r in NativeGenerator(lm, tokenizer, (), rows=3).generate(prompts(4), 2, WARM, seed=0, iteration=0):
        expected = recompute(lm, r, 0.8).gather(1, torch.tensor(r.response_ids)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(r.logprobs), expected, rtol=0, atol=2e-5)


def test_bfloat16_trunk_keeps_log_probs_close(
    tokenizer: Any, models: Any, prompts: Any, recompute: Any
) -> None:
    lm = models["llama"]
    generator = NativeGenerator(lm, tokenizer, (), precision=torch.bfloat16)
    for r in generator.generate(prompts(), 2, WARM, seed=0, iteration=0):
        expected = recompute(lm, r, 0.8).gather(1, torch.tensor(r.response_ids)[:, None])[:, 0]
        difference = (torch.tensor(r.logprobs) - expected).abs()
        assert difference.max() < 0.15
        assert len(set(r.logprobs)) > 3


def test_what_does_not_fit_is_refused_before_it_starts(tokenizer: Any, models: Any, prompts: Any) -> None:
    generator = NativeGenerator(models["gpt2"], tokenizer, ())
    with pytest.raises(ConfigError, match=r"max_new_tokens is 600.*512") as caught:
        generator.generate(prompts(), 1, SamplingSection(max_new_tokens=600), seed=0, iteration=0)
    longest = max(len(p.ids) for p in prompts())
    assert f"to {512 - longest}" in caught.value.cure
    with pytest.raises(DataError, match="'empty' has no tokens"):
        generator.generate([TokenPrompt(Prompt("empty", ""), ())], 1, WARM, seed=0, iteration=0)
    assert generator.generate([], 2, WARM, seed=0, iteration=0) == []


def test_broken_weights_are_named(tokenizer: Any, prompts: Any) -> None:
    from plaudit.models.tiny import tiny_lm

    lm = tiny_lm("llama", tokenizer, hidden=32, layers=2)
    lm.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="log-prob of nan"):
        NativeGenerator(lm, tokenizer, ()).generate(prompts(2), 1, WARM, seed=0, iteration=0)


def test_encoders_are_refused(tokenizer: Any) -> None:
    from plaudit.models.tiny import tiny_classifier

    with pytest.raises(ModelError, match="not a decoder"):
        NativeGenerator(tiny_classifier("roberta", tokenizer), tokenizer, ())
