"""DPO and its family on batches: hand-worked numbers, splits into microbatches, gradients by finite differences."""

import math
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck

from plaudit.algorithms.dpo import DPO, IPO, ORPO, Hinge, SimPO
from plaudit.algorithms.kto import KTO
from plaudit.algorithms.online_dpo import OnlineDPO, best_and_worst
from plaudit.errors import ConfigError
from plaudit.experience import Experience, Outputs, Pairs

ON_PAIRS = [
    DPO(), DPO(label_smoothing=0.1), DPO(label_smoothing=0.1, robust=True), IPO(), IPO(average=False), Hinge(),
    ORPO(), SimPO(),
]  # fmt: skip


def rows_of(lengths, width):
    """Rows of one prompt token and so many response tokens; the rest is padding."""
    place = torch.arange(width)
    lengths = torch.tensor(lengths)[:, None]
    return place <= lengths, (place >= 1) & (place <= lengths)


def spread(totals, mask):
    """Log-probs that add up to the totals, row by row; garbage outside the mask."""
    share = torch.tensor(totals, dtype=torch.float64)[:, None] / mask.sum(-1, keepdim=True)
    return torch.where(mask, share, -77.0)


def pairs(reference, lengths, targets=None, width=7):
    attention, mask = rows_of(lengths, width)
    count = len(lengths) // 2
    return Pairs(
        torch.zeros(len(lengths), width, dtype=torch.long), attention, mask, torch.zeros(count),
        torch.tensor(targets or [1.0] * count), ref_logprobs=spread(reference, mask),
    )  # fmt: skip


def outputs(policy, mask):
    return Outputs(logprobs=spread(policy, mask), entropy=torch.where(mask, 0.7, 99.0))


D1 = pairs([-12.0, -10.0], [4, 5])


def d1(algorithm):
    return algorithm.loss(algorithm.weights(D1), outputs([-10.0, -11.0], D1.response_mask))


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        (DPO(), 0.554355),
        (DPO(label_smoothing=0.1), 0.584355),
        (DPO(label_smoothing=0.1, robust=True), (0.9 * 0.554355 - 0.1 * 0.854355) / 0.8),
        (IPO(average=False), 4.0),
        (IPO(), 18.49),
        (Hinge(), 0.7),
    ],
)
def test_d1(algorithm, expected):
    assert d1(algorithm).value.item() == pytest.approx(expected, abs=1e-5)


def test_d1_metrics():
    found = {name: float(value) for name, value in d1(DPO()).metrics.items()}
    expected = {
        "loss": 0.554355, "rewards/chosen": 0.2, "rewards/rejected": -0.1, "rewards/margins": 0.3,
        "rewards/accuracies": 1.0, "logps/chosen": -10.0, "logps/rejected": -11.0, "policy/entropy": 0.7,
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-5)


def test_d2_and_d3():
    batch = pairs([0.0, 0.0], [4, 5])
    policy = outputs([-0.5 * 4, -1.0 * 5], batch.response_mask)
    orpo = ORPO(ratio_coef=0.1).loss(ORPO().weights(batch), policy)
    assert orpo.value.item() == pytest.approx(0.5 + 0.1 * 0.320300, abs=1e-6)
    assert float(orpo.metrics["policy/log_odds_ratio"]) == pytest.approx(0.974077, abs=1e-6)
    simpo = SimPO(beta=2, margin=1).loss(SimPO().weights(batch), policy)
    assert simpo.value.item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("algorithm", [DPO(), DPO(label_smoothing=0.3), DPO(beta=3.0)])
def test_at_the_reference_dpo_is_ln_2_and_every_pair_a_tie(algorithm):
    batch = algorithm.weights(D1)
    loss = algorithm.loss(batch, outputs([-12.0, -10.0], D1.response_mask))
    assert loss.value.item() == pytest.approx(math.log(2), abs=1e-7)
    assert float(loss.metrics["rewards/accuracies"]) == 0.5


def test_agreement_is_a_soft_target():
    batch = DPO().weights(pairs([-12.0, -10.0], [4, 5], targets=[0.9]))
    policy = outputs([-10.0, -11.0], batch.response_mask)
    assert DPO().loss(batch, policy).value.item() == pytest.approx(0.584355, abs=1e-6)
    assert DPO(use_agreement=False).loss(batch, policy).value.item() == pytest.approx(0.554355, abs=1e-6)


@pytest.mark.parametrize("algorithm", ON_PAIRS)
def test_with_every_loss_agreement_is_the_share_of_the_pair_the_other_way_round(algorithm):
    turned = pairs([-10.0, -12.0], [5, 4])  # the same two responses, the rejected one first
    other = algorithm.loss(algorithm.weights(turned), outputs([-11.0, -10.0], turned.response_mask)).value.item()
    for target in (1.0, 0.7, 0.5):
        batch = algorithm.weights(pairs([-12.0, -10.0], [4, 5], targets=[target]))
        policy = outputs([-10.0, -11.0], batch.response_mask)
        found = algorithm.loss(batch, policy).value.item()
        assert found == pytest.approx(target * d1(algorithm).value.item() + (1 - target) * other, rel=1e-6)
        hard = replace(algorithm, use_agreement=False).loss(batch, policy).value.item()
        assert hard == pytest.approx(d1(algorithm).value.item(), rel=1e-6)


def test_robust_with_agreement_by_hand():
    robust = DPO(label_smoothing=0.1, robust=True)
    batch = robust.weights(pairs([-12.0, -10.0], [4, 5], targets=[0.9]))
    found = robust.loss(batch, outputs([-10.0, -11.0], batch.response_mask)).value.item()
    # the logistic loss of a gap of 0.3 and of -0.3, with the target (0.9 - 0.1) / 0.8 = 1
    assert found == pytest.approx(0.554355, abs=1e-6)


@pytest.mark.parametrize(
    ("smoothing", "target", "expected"),
    # The gap is 0.3, so the loss is 0.554355 if the label is right, and 0.854355 if it is wrong.
    [(0.0, 1.0, 0.554355), (0.1, 1.0, 0.584355), ("score_gap", 1.0, 0.554355), ("score_gap", 0.9, 0.584355)],
)
def test_online_dpo_by_hand(smoothing, target, expected):
    algorithm = OnlineDPO(beta=0.1, label_smoothing=smoothing)
    batch = algorithm.weights(pairs([-12.0, -10.0], [4, 5], targets=[target]))
    loss = algorithm.loss(batch, outputs([-10.0, -11.0], batch.response_mask))
    assert loss.value.item() == pytest.approx(expected, abs=1e-6)
    found = {name: float(value) for name, value in loss.metrics.items()}
    assert "loss" not in found, "it is an online policy's loss, and has that name"
    assert found["policy/loss"] == pytest.approx(expected, abs=1e-6)
    assert found["rewards/margins"] == pytest.approx(0.3, abs=1e-6)


def many(seed=0, count=5):
    drawn = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 6, (2 * count,), generator=drawn).tolist()
    reference = (-3 * torch.rand(2 * count, generator=drawn) - 0.5).tolist()
    policy = (-3 * torch.rand(2 * count, generator=drawn) - 0.5).tolist()
    return pairs(reference, lengths, targets=torch.rand(count, generator=drawn).tolist()), policy


@pytest.mark.parametrize("algorithm", ON_PAIRS)
@pytest.mark.parametrize("parts", [[[0, 1, 2, 3, 4]], [[3], [0, 4], [1, 2]], [[4], [3], [2], [1], [0]]])
def test_a_split_of_the_step_changes_nothing(algorithm, parts):
    batch, policy = many()
    batch = algorithm.weights(batch)
    whole = algorithm.loss(batch, outputs(policy, batch.response_mask))
    value, metrics = 0.0, {}
    for units in parts:
        part = batch.select(torch.tensor(units))
        mine = [policy[row] for unit in units for row in (2 * unit, 2 * unit + 1)]
        loss = algorithm.loss(part, outputs(mine, part.response_mask))
        value += loss.value.item()
        for name, each in loss.metrics.items():
            metrics[name] = metrics.get(name, 0.0) + float(each)
    assert value == pytest.approx(whole.value.item(), rel=1e-6)
    assert metrics == pytest.approx({name: float(v) for name, v in whole.metrics.items()}, rel=1e-5, abs=1e-7)


def thumbs(rewards, reference, lengths, kl=0.0, width=7):
    attention, mask = rows_of(lengths, width)
    return Experience(
        torch.zeros(len(lengths), width, dtype=torch.long), attention, mask, rewards=torch.tensor(rewards),
        ref_logprobs=spread(reference, mask), mismatched_kl=torch.full((len(lengths),), kl),
    )  # fmt: skip


def test_kto_by_hand():
    batch = KTO().weights(thumbs([1.0, 0.0], [-12.0, -10.0], [4, 5], kl=0.5))
    policy = outputs([-10.0, -11.0], batch.response_mask)
    assert KTO().loss(batch, policy).value.item() == pytest.approx(0.462570, abs=1e-6)
    weighted = KTO(up_weight=3.0, down_weight=0.5).loss(batch, policy)
    assert weighted.value.item() == pytest.approx(0.462570 * 3.5 / 2, abs=1e-6)
    found = {name: float(value) for name, value in weighted.metrics.items()}
    assert found["rewards/chosen"] == pytest.approx(0.2) and found["rewards/rejected"] == pytest.approx(-0.1)
    assert found["objective/mismatched_kl"] == pytest.approx(0.5) and found["rewards/accuracies"] == 1.0


def test_kto_split_and_one_sided_steps():
    batch = thumbs([1.0, 0.0, 1.0, 1.0], [-3.0, -2.0, -1.0, -4.0], [3, 1, 2, 5], kl=0.3)
    policy = [-2.0, -2.5, -1.5, -1.0]
    batch = KTO().weights(batch)
    whole = KTO().loss(batch, outputs(policy, batch.response_mask))
    sums = {}
    for rows in ([1], [0, 3], [2]):
        part = batch.select(torch.tensor(rows))
        for name, value in (
            KTO().loss(part, outputs([policy[r] for r in rows], part.response_mask)).metrics.items()
        ):
            sums[name] = sums.get(name, 0.0) + float(value)
    assert sums == pytest.approx({name: float(v) for name, v in whole.metrics.items()})
    assert sums["rewards/chosen"] == pytest.approx(0.1 * (1.0 - 0.5 + 3.0) / 3)
    ups = KTO().weights(thumbs([1.0], [-3.0], [3]))
    assert "rewards/rejected" not in KTO().loss(ups, outputs([-3.0], ups.response_mask)).metrics


def test_kto_says_how_its_weights_stand():
    assert "as recommended" in KTO().advice([1, 1, 0, 0])
    said = KTO().advice([1, 0, 0, 0, 0])
    weight = float(said.rpartition(" ")[2])
    assert "--up-weight" in said and "as recommended" in KTO(up_weight=weight).advice([1, 0, 0, 0, 0])
    assert "--down-weight" in KTO().advice([1, 1, 1, 1, 0])
    assert "missing" in KTO().advice([1, 1])


@pytest.mark.parametrize("algorithm", [*ON_PAIRS, KTO()])
def test_gradients_by_finite_differences(algorithm):
    if isinstance(algorithm, KTO):
        batch, policy = thumbs([1.0, 0.0], [-3.0, -2.0], [2, 3], kl=0.4), [-2.0, -2.5]
    else:
        batch, policy = many(count=2)
    batch = algorithm.weights(batch)
    logprobs = outputs(policy, batch.response_mask).logprobs.clone().requires_grad_()

    def value(x):
        return algorithm.loss(batch, Outputs(logprobs=x, entropy=torch.zeros_like(x))).value

    assert gradcheck(value, (logprobs,), atol=1e-6)
    value(logprobs).backward()
    outside = logprobs.grad[~batch.response_mask]
    assert (outside == 0).all() and logprobs.grad[batch.response_mask].abs().sum() > 0


# Online DPO


def test_best_and_worst_of_each_prompt():
    nan = math.nan
    scores = torch.tensor([1.0, 3.0, 2.0, 5.0, 5.0, nan, 0.0, 7.0, nan, nan, 4.0])
    groups = torch.tensor([4, 4, 2, 1, 1, 2, 2, 4, 9, 9, 9])
    best, worst = best_and_worst(scores, groups)
    assert best.tolist() == [7, 2] and worst.tolist() == [0, 6], "ties and lone responses make no pair"


def sampled(rewards, truncated):
    attention, mask = rows_of([2] * len(rewards), 4)
    logprobs = spread([-2.0] * len(rewards), mask)
    return Experience(
        torch.arange(len(rewards))[:, None].expand(-1, 4).contiguous(), attention, mask,
        group_ids=torch.arange(len(rewards)) // 2, rewards=torch.tensor(rewards), truncated=torch.tensor(truncated),
        old_logprobs=logprobs, ref_logprobs=logprobs - mask.double(),
    )  # fmt: skip


def test_online_dpo_penalises_before_it_ranks():
    algorithm = OnlineDPO(missing_eos_penalty=1.0)
    batch = sampled([1.0, 0.5, 2.0, 2.0], [True, False, False, False])
    credit = algorithm.credit(batch, algorithm.start())
    assert credit.batch.tokens[:, 0].tolist() == [1, 0], (
        "the longer one lost its lead; equal scores make no pair"
    )
    assert credit.batch.margins.tolist() == [0.5]
    assert credit.metrics["pairs/kept_share"] == 0.5 and credit.metrics["objective/kl"] == pytest.approx(2.0)
    assert credit.batch.targets.tolist() == [1.0] and credit.batch.ref_logprobs.shape == (2, 4)


def test_online_dpo_without_a_pair():
    algorithm = OnlineDPO()
    credit = algorithm.credit(sampled([1.0, 1.0], [False, False]), algorithm.start())
    assert len(credit.batch) == 0 and credit.metrics["pairs/kept_share"] == 0.0


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (DPO, {"beta": 0.0}), (DPO, {"label_smoothing": 0.5}), (DPO, {"robust": True}), (IPO, {"beta": -1.0}),
        (Hinge, {"beta": 0.0}), (KTO, {"up_weight": 0.0}), (ORPO, {"ratio_coef": 0.0}), (SimPO, {"margin": -1.0}),
        (OnlineDPO, {"group_size": 1}), (OnlineDPO, {"epochs": 0}), (OnlineDPO, {"label_smoothing": 0.7}),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(make, wrong):
    with pytest.raises(ConfigError) as failure:
        make(**wrong)
    assert failure.value.cure


def test_algorithms_are_values():
    assert replace(DPO(), beta=0.2) == DPO(beta=0.2) and hash(KTO()) == hash(KTO())


def test_the_relatives_are_presets():
    for relative, loss in ((IPO, "ipo"), (Hinge, "hinge"), (SimPO, "simpo"), (ORPO, "orpo")):
        assert relative().pair_loss == loss
        assert relative(beta=0.7).beta == 0.7
    assert Hinge(pair_loss="dpo").pair_loss == "dpo", "a setting that is given wins"
