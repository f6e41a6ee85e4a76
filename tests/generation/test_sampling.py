"""The law tokens are drawn from, and the random numbers behind it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from plaudit.generation.sampling import Distribution, draw, invert, sample_seed, uniform

DRAWS = 100_000


def uniforms(count: int, seed: int = 3) -> torch.Tensor:
    seeds = np.array([sample_seed(seed, 0, "p", k) for k in range(100)], dtype=np.uint64)
    return torch.from_numpy(uniform(seeds[:, None], np.arange(count // 100, dtype=np.uint64)).ravel())


def drawn(logits: torch.Tensor, law: Distribution, banned: torch.Tensor | None = None) -> np.ndarray:
    """How often each token comes up in 1e5 draws."""
    counts = np.zeros(len(logits))
    for u in uniforms(DRAWS).split(5000):
        rows = logits.expand(len(u), -1)
        tokens, _ = draw(rows, u, law, None if banned is None else banned.expand(len(u), -1))
        counts += np.bincount(tokens.numpy(), minlength=len(logits))
    return counts


def fits(counts: np.ndarray, probs: torch.Tensor) -> float:
    """p-value of a chi-square test; rare tokens (fewer than 5 expected) are put together."""
    expected = probs.double().numpy() * DRAWS
    assert counts[expected == 0].sum() == 0
    rare = expected < 5
    seen = np.append(counts[~rare], counts[rare].sum())
    due = np.append(expected[~rare], expected[rare].sum())
    keep = due > 0
    return float(stats.chisquare(seen[keep], due[keep] * seen.sum() / due.sum()).pvalue)


@pytest.mark.parametrize("vocab", [7, 512, 1300])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_draws_follow_the_softmax(vocab: int, temperature: float) -> None:
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(vocab)) * 2
    p = (logits.double() / temperature).softmax(-1)
    counts = drawn(logits, Distribution(temperature))
    assert fits(counts, p) > 1e-3
    assert fits(counts, (logits.double() / temperature * 1.05).softmax(-1)) < 1e-3  # the test has teeth


def test_log_probs_of_known_logits() -> None:
    logits = torch.tensor([[0.0, math.log(2), math.log(3)]]).expand(3, -1)
    u = torch.tensor([0.1, 0.4, 0.9], dtype=torch.float64)
    tokens, logprobs = draw(logits, u, Distribution())
    assert tokens.tolist() == [0, 1, 2]
    assert logprobs.tolist() == pytest.approx([-1.791759, -1.098612, -0.693147], abs=1e-6)
    _, sharp = draw(logits, torch.tensor([0.05, 0.2, 0.9], dtype=torch.float64), Distribution(temperature=0.5))
    assert sharp.tolist() == pytest.approx([-2.639057, -1.252763, -0.441833], abs=1e-6)


def test_truncated_laws_keep_the_log_prob_of_the_full_one() -> None:
    probs = torch.tensor([0.05, 0.5, 0.05, 0.3, 0.1])
    nucleus = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.1])  # reaches 0.85 with its third token
    assert fits(drawn(probs.log(), Distribution(top_p=0.85)), nucleus / 0.9) > 1e-3
    assert fits(drawn(probs.log(), Distribution(top_k=2)), torch.tensor([0.0, 0.625, 0.0, 0.375, 0.0])) > 1e-3
    tokens, logprobs = draw(probs.log()[None], torch.tensor([0.0], dtype=torch.float64), Distribution(top_p=0.85))
    assert tokens.item() == 1 and logprobs.item() == pytest.approx(math.log(0.5), abs=1e-6)


def test_min_p_keeps_what_is_likely_enough_beside_the_best() -> None:
    probs = torch.tensor([0.05, 0.5, 0.05, 0.3, 0.1])
    kept = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.1])  # at least 0.15 * 0.5 = 0.075
    assert fits(drawn(probs.log(), Distribution(min_p=0.15)), kept / 0.9) > 1e-3
    assert fits(drawn(probs.log(), Distribution(min_p=0.09)), probs) > 1e-3
    assert drawn(probs.log(), Distribution(min_p=1.0)).tolist() == [0, DRAWS, 0, 0, 0]
    # Twice as hot, the ratio of 0.1 to 0.5 is its root, 0.447.
    warm = drawn(probs.log(), Distribution(temperature=2.0, min_p=0.44))
    assert (warm > 0).tolist() == [False, True, False, True, True]
    # Top-k 2 first: what it leaves out does not come back.
    assert (drawn(probs.log(), Distribution(top_k=2, min_p=0.1)) > 0).tolist() == [False, True, False, True, False]
    _, logprob = draw(probs.log()[None], torch.tensor([0.0], dtype=torch.float64), Distribution(min_p=0.9))
    assert logprob.item() == pytest.approx(math.log(0.5), abs=1e-6)


def test_top_p_keeps_at_least_one_token_and_works_after_top_k() -> None:
    probs = torch.tensor([0.4, 0.35, 0.25])
    assert drawn(probs.log(), Distribution(top_p=0.01)).tolist() == [DRAWS, 0, 0]
    # Of the two left by top-k, the first has 0.533 of the mass, which is enough.
    assert drawn(probs.log(), Distribution(top_k=2, top_p=0.5)).tolist() == [DRAWS, 0, 0]


def test_banned_tokens_are_never_drawn_even_where_they_have_all_the_mass() -> None:
    logits = torch.tensor([200.0, 0.0, 0.0])
    banned = torch.tensor([True, False, False])
    counts = drawn(logits, Distribution(), banned)
    assert counts[0] == 0 and counts[1] == pytest.approx(DRAWS / 2, rel=0.02)
    _, logprob = draw(logits[None], torch.tensor([0.5], dtype=torch.float64), Distribution(), banned[None])
    assert logprob.item() == pytest.approx(-200.0)


@pytest.mark.parametrize("vocab", [5, 1024, 1500])
def test_tokens_without_weight_are_never_drawn_at_the_edges(vocab: int) -> None:
    weights = torch.zeros(2, vocab)
    weights[:, 3], weights[:, vocab // 2] = 1.0, 2.0
    u = torch.tensor([0.0, np.nextafter(1.0, 0.0)], dtype=torch.float64)
    tokens, mass = invert(weights, u)
    assert tokens.tolist() == sorted([3, vocab // 2]) and mass.tolist() == [3.0, 3.0]


def test_the_inverse_is_where_the_cumulative_sum_crosses() -> None:
    weights = torch.rand(50, 2000, generator=torch.Generator().manual_seed(0))
    u = uniforms(100)[:50]
    running = weights.double().cumsum(1)
    expected = (running <= (u * running[:, -1])[:, None]).sum(1)
    assert invert(weights, u)[0].tolist() == expected.tolist()


def test_uniforms_are_splitmix64_and_need_no_predecessors() -> None:
    first = uniform(np.zeros(1, np.uint64), np.zeros(1, np.uint64))[0]
    assert first == (0xE220A8397B1DCDAF >> 11) * 2.0**-53  # the published first output for seed 0
    seeds, t = np.arange(40, dtype=np.uint64), np.arange(500, dtype=np.uint64)
    table = uniform(seeds[:, None], t)
    assert table[7, 123] == uniform(seeds[7], t[123])
    assert table.min() >= 0 and table.max() < 1
    assert stats.kstest(table.ravel(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(table[:-1].ravel(), table[1:].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(table[:, :-1].ravel(), table[:, 1:].ravel())[0, 1]) < 0.03


def test_every_part_of_the_key_changes_the_seed() -> None:
    keys = [(0, 0, "a", 0), (1, 0, "a", 0), (0, 1, "a", 0), (0, 0, "b", 0), (0, 0, "a", 1), (0, 0, "a0", 0)]
    assert len({sample_seed(*key) for key in keys}) == len(keys)
    assert sample_seed(0, 0, "a", 0) == 16033191035500048476  # a change here changes every run's responses
