"""Reward model: lists, ratings, several qualities, LM loss; the same step however it is split; known optima."""

import math
from itertools import pairwise, permutations

import pytest
import torch

from plaudit.algorithms.reward_model import RewardModel
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Outputs, Pairs, Rankings


def rankings(ranks, sizes, lengths=None):
    rows = len(ranks)
    lengths = torch.tensor(lengths or [4] * rows)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    return Rankings(
        tokens=torch.arange(rows)[:, None].expand(mask.shape).clone(),
        attention_mask=mask,
        response_mask=mask & (torch.arange(mask.shape[1]) > 0),
        ranks=torch.tensor(ranks, dtype=torch.float32),
        sizes=torch.tensor(sizes),
    )


def by_row(table):
    """A model of one score a row: the row's number stands in its tokens."""
    return lambda batch: Outputs(scores=table[batch.tokens[:, 0]])


SCORES = torch.tensor([2.0, 1.0, 0.0, 0.5, 1.5, 3.0, 3.0], dtype=torch.float64)
BATCH = ([1, 2, 3, 1, 2, 1, 1], [3, 2, 2])  # the last list is a tie


def test_b5_each_prompt_counts_alike_and_a_list_of_ties_does_not_count():
    algorithm = RewardModel()
    batch = algorithm.weights(rankings(*BATCH))
    loss = algorithm.loss(batch, Outputs(scores=SCORES))
    assert batch.loss_weights.tolist() == [0.5, 0.5, 0.0]
    assert loss.value.item() == pytest.approx((0.251150 + 1.313262) / 2, abs=1e-6)
    assert loss.metrics["reward_model/accuracy"].item() == pytest.approx(0.5)
    assert loss.metrics["reward_model/margin"].item() == pytest.approx((4 / 3 - 1) / 2)


def test_weight_by_pairs():
    algorithm = RewardModel(ranking_loss="all_pairs")
    loss = algorithm.loss(algorithm.weights(rankings(*BATCH)), Outputs(scores=SCORES))
    assert loss.value.item() == pytest.approx((0.313262 * 2 + 0.126928 + 1.313262) / 4, abs=1e-6)


@pytest.mark.parametrize(("kind", "expected"), [("plackett_luce", 0.720868), ("best", 0.407606)])
def test_listwise(kind, expected):
    algorithm = RewardModel(ranking_loss=kind)
    loss = algorithm.loss(algorithm.weights(rankings([1, 2, 3], [3])), Outputs(scores=SCORES[:3]))
    assert loss.value.item() == pytest.approx(expected, abs=1e-6)


ALGORITHMS = [
    RewardModel(),
    RewardModel(ranking_loss="all_pairs", label_smoothing=0.1, centering=0.01),
    RewardModel(smoothing="robust", label_smoothing=0.2, centering=0.01),
    RewardModel(ranking_loss="plackett_luce"),
    RewardModel(ranking_loss="best"),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("parts", [[[0, 1, 2]], [[0], [1], [2]], [[2, 0], [1]]])
def test_splitting_a_step_changes_nothing(algorithm, parts):
    table = SCORES.clone().requires_grad_()
    batch = algorithm.weights(rankings(*BATCH, lengths=[4, 3, 2, 4, 4, 2, 3]))
    whole = algorithm.loss(batch, by_row(table)(batch))
    (expected,) = torch.autograd.grad(whole.value, table)
    metrics = dict.fromkeys(whole.metrics, 0.0)
    found = torch.zeros_like(table)
    for units in parts:
        part = batch.select(torch.tensor(units))
        loss = algorithm.loss(part, by_row(table)(part))
        found += torch.autograd.grad(loss.value, table)[0]
        metrics = {name: metrics[name] + float(loss.metrics[name]) for name in metrics}
    assert torch.allclose(found, expected, atol=1e-12)
    assert metrics == pytest.approx({n: float(v) for n, v in whole.metrics.items()}, abs=1e-9)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_gradients_by_finite_differences(algorithm):
    batch = algorithm.weights(rankings(*BATCH))
    scores = SCORES.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: algorithm.loss(batch, Outputs(scores=s)).value, (scores,))


@pytest.mark.parametrize(
    "algorithm",
    [
        RewardModel(margin=0.5),
        RewardModel(smoothing="robust", label_smoothing=0.2),
        RewardModel(centering=0.1),
    ],
)
def test_gradients_of_pairs_by_finite_differences(algorithm):
    batch = algorithm.weights(pairs(2, targets=[0.8, 1.0], margins=[1.0, 2.0]))
    scores = torch.tensor([0.3, -1.0, 2.0, 2.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: algorithm.loss(batch, Outputs(scores=s)).value, (scores,))


def test_k_forwards_have_the_gradients_of_all_pairs_apart():
    """B5: one forward a response gives the loss and gradients of two forwards a pair."""
    torch.manual_seed(0)
    features = torch.randn(4, 5, dtype=torch.float64)
    ranks = [2, 1, 4, 3]
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    batch = RewardModel().weights(rankings(ranks, [4]))
    together = RewardModel().loss(batch, Outputs(scores=features @ weight)).value
    order = sorted(range(4), key=lambda i: ranks[i])
    twos = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
    apart = RewardModel().weights(pairs(len(twos)))
    scores = torch.stack([features[i] @ weight for two in twos for i in two])
    separately = RewardModel().loss(apart, Outputs(scores=scores)).value
    assert together.item() == pytest.approx(separately.item(), rel=1e-6)
    one, other = (torch.autograd.grad(x, weight)[0] for x in (together, separately))
    assert torch.allclose(one, other, rtol=1e-6)  # weights are fp32


def pairs(n, targets=None, margins=None):
    ones = torch.ones(2 * n, 4, dtype=torch.bool)
    return Pairs(
        tokens=torch.zeros(2 * n, 4, dtype=torch.long),
        attention_mask=ones,
        response_mask=ones & torch.tensor([False, False, True, True]),
        margins=torch.tensor(margins or [0.0] * n),
        targets=torch.tensor(targets or [1.0] * n),
    )


def two_heads(table, layer):
    """A model of a quality and a length a row."""
    return lambda batch: Outputs(
        scores=table[batch.tokens[:, 0], 0], heads=table[batch.tokens[:, 0]], head_weights=layer
    )


@pytest.mark.parametrize("kind", ["pairs", "best"])
def test_odin_is_the_loss_of_the_whole_step_however_it_is_split(kind):
    algorithm = RewardModel(length=("odin", 0.7), ranking_loss=kind)
    torch.manual_seed(3)
    table = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    layer = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    lengths = [4, 3, 2, 4, 4, 2, 3]
    batch = rankings(*BATCH, lengths=lengths).replace(heads=table.detach())
    batch = algorithm.weights(batch)
    found = [torch.zeros_like(table), torch.zeros_like(layer)]
    for units in ([2, 0], [1]):
        part = batch.select(torch.tensor(units))
        loss = algorithm.loss(part, two_heads(table, layer)(part))
        found = [a + b for a, b in zip(found, torch.autograd.grad(loss.value, [table, layer]), strict=True)]
    # The paper's loss of the whole step, written out: comparisons by the sum, lengths of the responses, directions.
    plain = RewardModel(ranking_loss=kind)
    whole = plain.loss(plain.weights(batch), Outputs(scores=table.sum(-1))).value
    tokens = torch.tensor(lengths, dtype=torch.float64) - 1
    of_quality, of_length = (torch.corrcoef(torch.stack([head, tokens]))[0, 1] for head in table.T)
    cosine = layer[0] @ layer[1] / (layer[0].norm() * layer[1].norm())
    whole = whole + 0.7 * (of_quality.abs() - of_length) + cosine.abs()
    expected = torch.autograd.grad(whole, [table, layer])
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(found, expected, strict=True))


def test_odin_counts_right_by_the_quality_alone():
    algorithm = RewardModel(length="odin")
    table = torch.tensor([[0.0, 5.0], [1.0, 0.0]])  # the sum ranks it right, the score does not
    batch = algorithm.weights(pairs(1).replace(heads=table))
    loss = algorithm.loss(batch, Outputs(scores=table[:, 0], heads=table, head_weights=torch.eye(2)))
    assert float(loss.metrics["reward_model/accuracy"]) == 0
    assert float(loss.value) == pytest.approx(math.log1p(math.exp(-4)), abs=1e-6)
    assert (algorithm.heads, algorithm.head_weights) == (("quality", "length"), (1.0, 0.0))
    assert algorithm.length_correction == ("none", 1.0), "nothing is left to do after training"
    with pytest.raises(ConfigError, match="trained on comparisons"):
        RewardModel(length="odin", ratings="regression")


def test_a_microbatch_of_ties_alone_has_a_zero_gradient():
    algorithm = RewardModel()
    part = algorithm.weights(rankings(*BATCH)).select(torch.tensor([2]))
    scores = torch.tensor([3.0, 3.0], requires_grad=True)
    algorithm.loss(part, Outputs(scores=scores)).value.backward()
    assert scores.grad.tolist() == [0.0, 0.0]


def test_lm_loss_is_the_token_mean_of_the_chosen_response():
    logprobs = torch.tensor([[0.0, 0.0, -1.0, -3.0], [0.0, 0.0, -50.0, -50.0]])
    algorithm = RewardModel(lm_coef=0.5)
    out = Outputs(scores=torch.tensor([2.0, 1.0]), logprobs=logprobs)
    loss = algorithm.loss(algorithm.weights(pairs(1)), out)
    assert loss.value.item() == pytest.approx(0.313262 + 0.5 * 2.0, abs=1e-6)
    assert loss.metrics["reward_model/lm_loss"].item() == pytest.approx(2.0)
    of_list = algorithm.weights(rankings([2, 1, 1], [3]))
    tokens = -torch.arange(12.0).view(3, 4)  # best: rows 1 and 2, tokens 5..7 and 9..11, means 6 and 10
    loss = algorithm.loss(of_list, Outputs(scores=SCORES[:3].float(), logprobs=tokens))
    assert loss.metrics["reward_model/lm_loss"].item() == pytest.approx(8.0)


def rated(values, **fields):
    ones = torch.ones(len(values), 3, dtype=torch.bool)
    return Experience(torch.arange(len(values))[:, None].expand(-1, 3), ones, ones, **fields)


def test_regression_on_ratings():
    algorithm = RewardModel(ratings="regression")
    batch = algorithm.weights(rated([1, 2], rewards=torch.tensor([1.0, -1.0])))
    assert algorithm.loss(batch, Outputs(scores=torch.tensor([0.5, 1.0]))).value.item() == pytest.approx(
        (0.25 + 4) / 2
    )


def test_heads_are_averaged_and_reported_apart():
    algorithm = RewardModel(ratings="regression", attributes=("helpful", "short", "kind", "true"))
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    batch = algorithm.weights(rated([1, 2], attributes=targets))
    heads = torch.zeros(2, 4)
    loss = algorithm.loss(batch, Outputs(scores=torch.zeros(2), heads=heads))
    assert loss.value.item() == pytest.approx((0.5 + 2.0) / 4)
    assert loss.metrics["reward_model/squared_error/short"].item() == pytest.approx(2.0)
    part = batch.select(torch.tensor([1]))
    assert part.attributes.shape == (1, 4), "more heads than tokens: nothing is cut off"
    assert algorithm.head_weights == (0.25,) * 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"attributes": ("a",)},
        {"attributes": ("a",), "ratings": "regression", "attribute_weights": (1.0, 2.0)},
        {"ranking_loss": "plackett_luce", "label_smoothing": 0.1},
        {"ranking_loss": "best", "centering": 0.1},
        {"lm_coef": -1.0},
    ],
)
def test_impossible_settings_are_refused_with_a_cure(wrong):
    with pytest.raises(ConfigError) as caught:
        RewardModel(**wrong)
    assert caught.value.cure


def descend(algorithm, batch, size, steps=400):
    """The scores that minimise the loss on infinite data: Newton-like descent from 0."""
    table = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [table], lr=1, max_iter=steps, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = algorithm.loss(batch, Outputs(scores=table[batch.tokens[:, 0]])).value
        loss.backward()
        return loss

    optimizer.step(closure)
    return table.detach() - table.detach().mean()


def plackett_luce_law(strengths):
    """Every order of the responses with its exact probability."""
    for order in permutations(range(len(strengths))):
        rest, probability = [math.exp(s) for s in strengths], 1.0
        for i in order:
            probability *= math.exp(strengths[i]) / sum(rest)
            rest.remove(math.exp(strengths[i]))
        yield order, probability


@pytest.mark.parametrize("kind", ["plackett_luce", "pairs", "best"])
def test_learns_the_strengths_of_a_plackett_luce_population(kind):
    """Known optimum: the loss over the exact law of the orders is least at the true strengths.

    It holds for the pairs as well, whose marginals are Bradley-Terry, and for the best alone.
    """
    strengths = [1.0, 0.2, -1.2]
    orders = list(plackett_luce_law(strengths))
    ranks = [order.index(i) + 1 for order, _ in orders for i in range(3)]
    batch = rankings(ranks, [3] * len(orders))
    batch = batch.replace(
        tokens=torch.arange(3).repeat(len(orders))[:, None].expand(-1, 4),
        loss_weights=torch.tensor([p for _, p in orders], dtype=torch.float64),
    )
    found = descend(RewardModel(ranking_loss=kind), batch, 3)
    assert found.tolist() == pytest.approx(strengths, abs=1e-4)


@pytest.mark.parametrize("smoothing", ["robust", "conservative"])
def test_robust_smoothing_finds_the_clean_optimum_on_flipped_labels(smoothing):
    """Bradley-Terry data whose labels are flipped with probability 0.2: only the unbiased loss sees through it."""
    strengths, flipped = [0.8, 0.0, -0.8], 0.2
    chosen, rejected, weights = [], [], []
    for i, j in permutations(range(3), 2):
        clean = 1 / (1 + math.exp(strengths[j] - strengths[i]))
        chosen.append(i)
        rejected.append(j)
        weights.append(((1 - flipped) * clean + flipped * (1 - clean)) / 6)
    rows = [x for two in zip(chosen, rejected, strict=True) for x in two]
    batch = pairs(6).replace(
        tokens=torch.tensor(rows)[:, None].expand(-1, 4),
        loss_weights=torch.tensor(weights, dtype=torch.float64),
    )
    found = descend(RewardModel(smoothing=smoothing, label_smoothing=flipped), batch, 3)
    if smoothing == "robust":
        assert found.tolist() == pytest.approx(strengths, abs=1e-4)
    else:
        steps = [a - b for a, b in pairwise(found.tolist())]
        assert all(step < 0.6 for step in steps), "conservative targets shrink differences further"
