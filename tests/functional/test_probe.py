"""The linear probe finds a known direction, shrinks by the penalty, and knows when there is nothing to find."""

import math

import torch

from plaudit.functional.probe import fit_probe


def sample(rows, noise_dims, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 2 + noise_dims, generator=generator)
    truth = torch.zeros(2 + noise_dims)
    truth[:2] = torch.tensor([2.0, -1.0])
    y = (torch.rand(rows, generator=generator) < torch.sigmoid(x @ truth)).float()
    return x, y, truth


def test_finds_the_law_that_made_the_labels():
    x, y, truth = sample(20_000, 3)
    probe = fit_probe(x, y, torch.arange(len(x)) % 5, penalties=(1e-5,))
    assert torch.allclose(probe.weight, truth, atol=0.1)


def test_one_feature_by_hand():
    # Three rows say yes, one says no, all at x = 1: without penalty sigma(w) = 3/4, so w = ln 3.
    probe = fit_probe(torch.ones(4, 1), torch.tensor([1.0, 1, 1, 0]), torch.arange(4), penalties=(0.0,))
    assert abs(float(probe.weight) - math.log(3)) < 1e-4


def test_scale_of_a_feature_does_not_matter():
    x, y, _ = sample(500, 3)
    folds = torch.arange(500) % 5
    plain, scaled = fit_probe(x, y, folds), fit_probe(x * torch.tensor([100.0, 1, 1, 0.01, 1]), y, folds)
    assert torch.allclose(plain.weight, scaled.weight * torch.tensor([100.0, 1, 1, 0.01, 1]), atol=1e-3)


def test_noise_alone_gets_a_strong_penalty_and_chance():
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(300, 50, generator=generator), (torch.rand(300, generator=generator) < 0.5).float()
    probe = fit_probe(x, y, torch.arange(300) % 5)
    assert probe.penalty == 1.0 and probe.loss < 0.72 and 0.38 < probe.accuracy < 0.62


def test_rows_of_one_fold_are_held_out_together():
    # Each row comes twice. Folds that split the twins would look perfect; folds that keep them show chance.
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(60, 80, generator=generator).repeat(2, 1)
    y = (torch.rand(60, generator=generator) < 0.5).float().repeat(2)
    split, kept = torch.arange(120) // 60, torch.arange(120) % 60 % 5
    assert fit_probe(x, y, split, (1e-4,)).accuracy > 0.95
    assert fit_probe(x, y, kept, (1e-4,)).accuracy < 0.7
