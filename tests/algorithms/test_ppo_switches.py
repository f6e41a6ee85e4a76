"""Every switch of PPO changes what it says and nothing else; gradients; what is refused."""

from dataclasses import fields, replace

import pytest
import torch
from torch.autograd import gradcheck

from plaudit.algorithms.ppo import PPO
from plaudit.algorithms.ppo_presets import PPO_MAX_CODE, PPO_MAX_PAPER
from plaudit.errors import ConfigError
from plaudit.experience import Outputs
from plaudit.functional.controllers import Carry

BASE = PPO(reward_clip=1.2, value_clip=0.1)
CREDIT = {"token_rewards", "advantages", "returns", "policy", "critic"}
ACTOR, CRITIC = {"advantages", "policy"}, {"returns", "critic"}

SWITCHES = [
    ("1 token-level KL", {"kl_coef": 0.0}, CREDIT),
    ("1 exact KL", {"kl_estimator": "full"}, CREDIT),
    ("1 KL in the loss", {"kl_in": "loss"}, CREDIT),
    ("2 importance sampling", {"old_policy": "ref"}, {"policy"}),
    ("3 entropy bonus", {"entropy_coef": 0.1}, {"policy"}),
    ("4 reward scaling", {"reward_scaling": "scale"}, CREDIT),
    ("5 reward normalisation", {"reward_scaling": "none"}, CREDIT),
    ("5 reward clip", {"reward_clip": 0.0}, CREDIT),
    ("5 whitened rewards", {"reward_scaling": "whiten"}, CREDIT),
    ("6 advantage normalisation", {"whiten_advantages": "none"}, ACTOR),
    ("6 advantage clip", {"advantage_clip": 0.5}, ACTOR),
    ("7 value clip", {"value_clip": 0.0}, {"critic"}),
    ("10 gae", {"gae_lambda": 1.0}, CREDIT - {"token_rewards"}),
    ("10 discount", {"gamma": 0.9}, CREDIT - {"token_rewards"}),
    ("10 lambda of the critic", {"gae_lambda": (0.95, 1.0)}, CRITIC),
    ("10 lambda by length", {"gae_lambda": "length"}, CREDIT - {"token_rewards"}),
    ("11 clip", {"clip": 0.0}, {"policy"}),
    ("11 clip-higher", {"clip_high": 0.4}, {"policy"}),
    ("11 dual clip", {"dual_clip": 1.1}, {"policy"}),
    ("missing EOS, penalty", {"missing_eos_penalty": 0.0}, CREDIT | {"moments"}),
    ("missing EOS, fixed", {"missing_eos": "fixed"}, CREDIT | {"moments"}),
    ("missing EOS, left out", {"missing_eos": "mask"}, CREDIT | {"moments", "mask"}),
    ("bootstrap", {"missing_eos": "bootstrap"}, CREDIT | {"moments"}),
    ("8 and 9, of the stage", {"critic": "sft", "critic_warmup": 0, "critic_lr": 1e-3, "target_kl": 0.0}, set()),
    ("8 critic on the trunk, of the learner", {"critic": "trunk", "value_coef": 0.3}, set()),
    ("ptx, of the loop", {"ptx_coef": 0.5, "ptx_dataset": "texts.jsonl"}, set()),
]  # fmt: skip


@pytest.fixture
def batch(experience):
    made = experience([2.0, -1.0, 0.5, 3.0, 1.0], groups=list(range(5)), lengths=[4, 2, 3, 4, 1])
    draw = torch.Generator().manual_seed(5)
    return made.replace(
        truncated=torch.tensor([False, False, False, True, False]),
        full_kl=torch.rand(5, 5, generator=draw, dtype=torch.float64) * made.response_mask,
        last_values=torch.rand(5, generator=draw, dtype=torch.float64),
    )


def outputs(batch, far=0.5):
    """A policy and a critic that have moved."""
    draw = torch.Generator().manual_seed(9)
    step = far * torch.randn(3, *batch.tokens.shape, generator=draw, dtype=torch.float64)
    return Outputs(
        logprobs=batch.old_logprobs + step[0], entropy=1 + step[1].abs(), values=batch.values + step[2]
    )


def everything(algorithm, batch):
    credit = algorithm.credit(batch, algorithm.start())
    step = algorithm.weights(credit.batch)
    out = outputs(batch)
    return {
        "token_rewards": credit.batch.token_rewards,
        "advantages": step.advantages,
        "returns": credit.batch.returns,
        "mask": credit.batch.response_mask.double(),
        "moments": torch.tensor([credit.carry.reward.mean, credit.carry.reward.squares]),
        "policy": algorithm.loss(step, out).value,
        "critic": algorithm.value_loss(step, out).value,
    }


@pytest.mark.parametrize(
    ("change", "expected"), [case[1:] for case in SWITCHES], ids=[case[0] for case in SWITCHES]
)
def test_a_switch_changes_what_it_says(batch, change, expected):
    if change.get("kl_in") == "loss":
        change = change | {"kl_estimator": "k3"}
    before, after = everything(BASE, batch), everything(replace(BASE, **change), batch)
    changed = {name for name in before if not torch.allclose(before[name], after[name], atol=1e-9)}
    assert changed == expected


def test_no_setting_is_without_a_test():
    tested = {name for _, change, _ in SWITCHES for name in change}
    elsewhere = {"group_size", "epochs", "minibatches", "kl_target", "entropy_target"}  # fmt: skip
    assert {f.name for f in fields(PPO)} == tested | elsewhere


PLAIN = {"reward_scaling": "none", "reward_clip": 0.0, "whiten_advantages": "none", "missing_eos_penalty": 0.0}


def one_row(experience, **changes):
    row = lambda *x: torch.tensor([[0.0, *x]], dtype=torch.float64)  # noqa: E731
    made = experience([1.0], width=3)
    same = {"ref_logprobs": made.old_logprobs, "values": row(0.5, 0.6, 0.7)}
    return made.replace(**(same | {k: row(*v) if isinstance(v, tuple) else v for k, v in changes.items()}))


def test_v1_with_a_lambda_of_its_own_for_the_critic(experience):
    credit = PPO(**PLAIN, gae_lambda=(0.95, 1.0)).credit(one_row(experience), Carry())
    assert credit.batch.advantages[0].tolist() == pytest.approx([0, 0.46575, 0.385, 0.3], abs=1e-9)
    assert credit.batch.returns[0].tolist() == pytest.approx([0, 1, 1, 1], abs=1e-9)


def test_the_warmup_has_sampled_returns_and_no_clip():
    algorithm = PPO(kl_coef=0.3).while_critic_warms_up()
    assert algorithm == PPO(kl_coef=0.3, gae_lambda=(0.95, 1.0), value_clip=0.0)


def test_no_coefficient_adapts_while_the_policy_rests(batch):
    plain = PPO(kl_target=6.0, entropy_coef=0.1, entropy_target=(99.0, 0.03))
    for algorithm, adapts in ((plain, True), (plain.while_critic_warms_up(), False)):
        before, after = plain.start(), algorithm.credit(batch, plain.start()).carry
        assert (after.kl_coef != before.kl_coef) is adapts
        assert (after.entropy_coef != before.entropy_coef) is adapts


def test_lambda_grows_with_the_response(experience):
    long = experience([1.0], width=64, lengths=[60])
    same = long.replace(ref_logprobs=long.old_logprobs, values=torch.zeros_like(long.old_logprobs))
    found = PPO(**PLAIN, gae_lambda="length").credit(same, Carry()).batch.advantages[0]
    last = int(same.response_mask[0].nonzero()[-1])
    grown = 1 - 1 / (0.05 * 60)  # 2/3: the reward stands on the last token, and there is no critic to speak of
    assert found[last - 2 : last + 1].tolist() == pytest.approx([grown**2, grown, 1.0], abs=1e-6)


def test_a_response_that_would_go_on_is_worth_what_the_critic_expects(experience):
    cut = one_row(
        experience, truncated=torch.tensor([True]), last_values=torch.tensor([0.8], dtype=torch.float64)
    )
    credit = PPO(**(PLAIN | {"missing_eos_penalty": 9.0}), missing_eos="bootstrap").credit(cut, Carry())
    assert not credit.batch.token_rewards.any(), "its score is not used, nor is it penalised"
    assert credit.batch.advantages[0].tolist() == pytest.approx([0, 0.28525, 0.195, 0.1], abs=1e-9)
    ended = cut.replace(truncated=torch.tensor([False]))
    credit = PPO(**PLAIN, missing_eos="bootstrap").credit(ended, Carry())
    assert credit.batch.advantages[0].tolist() == pytest.approx([0, 0.46575, 0.385, 0.3], abs=1e-9)


def test_the_exact_kl_teaches_the_tokens_before_and_k1_the_token_itself(experience):
    made = one_row(
        experience, old_logprobs=(-1.0, -2.0, -0.5), ref_logprobs=(-1.5, -1.8, -0.9), full_kl=(0.3, 0.2, 0.1),
        values=(0.0, 0.0, 0.0),
    )  # fmt: skip
    credit = PPO(**PLAIN, kl_estimator="full", gae_lambda=1.0).credit(made, Carry(kl_coef=0.1))
    assert credit.batch.token_rewards[0].tolist() == pytest.approx([0, -0.03, -0.02, 0.99], abs=1e-9)
    # k1 is .5, -.2, .4: A_t = 1 - .1 (k1_t + the exact ones after t)
    expected = [1 - 0.1 * (0.5 + 0.2 + 0.1), 1 - 0.1 * (-0.2 + 0.1), 1 - 0.1 * 0.4]
    assert credit.batch.advantages[0, 1:].tolist() == pytest.approx(expected, abs=1e-9)
    assert credit.metrics["objective/kl_full"] == pytest.approx(0.6) and credit.metrics[
        "objective/kl"
    ] == pytest.approx(0.7)


def test_whitened_rewards_are_zero_again_where_nothing_counts(batch):
    rewards = PPO(reward_scaling="whiten").credit(batch, Carry(kl_coef=0.05)).batch.token_rewards
    plain = PPO(reward_scaling="none").credit(batch, Carry(kl_coef=0.05)).batch
    counted = plain.token_rewards[plain.response_mask]
    assert not rewards[~batch.response_mask].any()
    scaled = (counted - counted.mean()) / counted.std(correction=0) + counted.mean()
    assert torch.allclose(rewards[batch.response_mask], scaled, atol=1e-6)


def test_whitening_by_minibatch(batch):
    by_step = PPO(whiten_advantages="minibatch", advantage_clip=0.9)
    credited = by_step.credit(batch, Carry()).batch
    for rows in (torch.tensor([0, 1]), torch.tensor([2, 3, 4])):
        step = by_step.weights(credited.select(rows))
        used = step.advantages[step.response_mask]
        raw = credited.advantages[rows][credited.response_mask[rows]]
        expected = ((raw - raw.mean()) / raw.std(correction=0)).clamp(-0.9, 0.9)
        assert torch.allclose(used, expected, atol=1e-6)


@pytest.mark.parametrize(("target", "sign"), [(5.0, -1), (0.1, +1)])
def test_the_bonus_pulls_the_entropy_to_its_target(batch, target, sign):
    algorithm = PPO(entropy_coef=0.1, entropy_target=target)
    step = algorithm.weights(algorithm.credit(batch, Carry()).batch)
    out = outputs(batch)
    bonus = algorithm.loss(step, out).value - PPO().loss(step, out).value
    assert bonus.item() == pytest.approx(sign * 0.1 * step.weighted_sum(out.entropy).item(), abs=1e-9)


def test_the_entropy_coefficient_rises_below_its_target_and_falls_above_it(batch):
    algorithm = PPO(entropy_coef=0.1, entropy_target=(99.0, 0.03))
    credit = algorithm.credit(batch, algorithm.start())
    assert credit.metrics["policy/entropy_coef"] == 0.1, "the metric is the coefficient that was used"
    assert credit.carry.entropy_coef == pytest.approx(0.13)
    step = algorithm.weights(algorithm.credit(batch, credit.carry).batch)
    out = outputs(batch)
    bonus = algorithm.loss(step, out).value - PPO().loss(step, out).value
    assert bonus.item() == pytest.approx(-0.13 * step.weighted_sum(out.entropy).item(), abs=1e-6)
    falling = PPO(entropy_coef=0.1, entropy_target=(1e-9, 0.07))
    found = [carry := falling.start()]
    for _ in range(3):
        found.append(carry := falling.credit(batch, carry).carry)
    assert [c.entropy_coef for c in found] == pytest.approx([0.1, 0.03, 0, 0]), "never a malus"


def test_a_step_with_a_mean_ratio_over_the_limit_is_named(batch):
    step = PPO().weights(PPO().credit(batch, Carry()).batch)
    assert PPO().loss(step, outputs(batch)).limits == {"policy/ratio_mean": 10.0}
    assert PPO().joint_loss(step, outputs(batch)).limits == {"policy/ratio_mean": 10.0}


def test_the_adaptive_coefficient_reaches_a_kl_in_the_loss(batch):
    algorithm = PPO(kl_in="loss", kl_estimator="k3", kl_target=6.0)
    step = algorithm.weights(algorithm.credit(batch, Carry(kl_coef=0.7)).batch)
    found = algorithm.loss(step, outputs(batch))
    without = found.value - 0.7 * found.metrics["policy/kl_loss"]
    assert without.item() == pytest.approx(found.metrics["policy/loss"].item(), abs=1e-9)


def test_mismatch_weights_multiply_the_policy_loss_only(batch):
    algorithm = PPO(kl_in="loss", kl_estimator="k3", entropy_coef=0.1)
    step = algorithm.weights(algorithm.credit(batch, Carry()).batch)
    out = outputs(batch)
    plain, none = (
        algorithm.loss(step.replace(mismatch_weights=w), out) for w in (None, torch.zeros(5, 5).double())
    )
    assert none.metrics["policy/loss"] == 0
    assert (plain.value - none.value).item() == pytest.approx(plain.metrics["policy/loss"].item(), abs=1e-12)


VARIANTS = [
    {}, {"clip": 0.0}, {"old_policy": "ref"}, {"entropy_coef": 0.1, "entropy_target": 0.5}, {"dual_clip": 1.5},
    *({"kl_in": "loss", "kl_estimator": k, "kl_coef": 0.5}
      for k in ("k1", "k2_naive", "k3_naive", "k3")),
]  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_gradient_by_finite_differences(batch, table, differences, variant):
    algorithm = PPO(whiten_advantages="none", **variant)
    step = algorithm.weights(algorithm.credit(batch, algorithm.start()).batch)
    algorithm.loss(step, table(step)).value.backward()
    by_hand = differences(lambda: algorithm.loss(step, table(step)).value, table.logits)
    assert by_hand.abs().max() > 1e-3
    assert torch.allclose(table.logits.grad, by_hand, atol=1e-6)


def test_k2_unbiased_takes_its_ratio_as_a_constant(batch, table, differences):
    """So its gradient is not that of its value, but that of the KL: see tests/functional/test_kl.py."""
    algorithm = PPO(kl_in="loss", kl_estimator="k2", kl_coef=0.5)
    step = algorithm.weights(algorithm.credit(batch, algorithm.start()).batch)
    algorithm.loss(step, table(step)).value.backward()
    assert not torch.allclose(
        table.logits.grad,
        differences(lambda: algorithm.loss(step, table(step)).value, table.logits),
        atol=1e-3,
    )


@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_gradient_of_the_critic_by_finite_differences(batch, clip):
    algorithm = PPO(value_clip=clip)
    step = algorithm.weights(algorithm.credit(batch, Carry()).batch)
    values = outputs(batch).values.requires_grad_()
    assert gradcheck(lambda v: algorithm.value_loss(step, Outputs(values=v)).value, (values,))


@pytest.mark.parametrize("variant", [{}, {"kl_in": "loss", "kl_estimator": "k3", "entropy_coef": 0.1,
                                          "entropy_target": 2.0, "whiten_advantages": "minibatch", "dual_clip": 1.5,
                                          "kl_target": 3.0}])  # fmt: skip
def test_a_step_may_be_split_in_any_way(batch, variant):
    algorithm = PPO(**variant)
    step = algorithm.weights(algorithm.credit(batch, Carry(kl_coef=0.4)).batch)

    def gradients(parts):
        logprobs, values = outputs(batch).logprobs.requires_grad_(), outputs(batch).values.requires_grad_()
        total = 0.0
        for rows in map(torch.tensor, parts):
            part = step.select(rows)
            width = part.tokens.shape[1]
            out = Outputs(logprobs[rows, :width], outputs(batch).entropy[rows, :width], values[rows, :width])
            total = total + algorithm.loss(part, out).value + algorithm.value_loss(part, out).value
        total.backward()
        return torch.stack([logprobs.grad, values.grad])

    whole = gradients([[0, 1, 2, 3, 4]])
    assert whole.abs().max() > 1e-3
    for parts in ([[4, 1], [2], [3, 0]], [[0], [1], [2], [3], [4]]):
        assert torch.allclose(gradients(parts), whole, atol=1e-12)


def test_one_loss_for_policy_and_critic_on_a_trunk(batch):
    algorithm = PPO(value_coef=0.3)
    step = algorithm.weights(algorithm.credit(batch, Carry()).batch)
    joint, policy, critic = (
        loss(step, outputs(batch)) for loss in (algorithm.joint_loss, algorithm.loss, algorithm.value_loss)
    )
    assert joint.value.item() == pytest.approx((policy.value + 0.3 * critic.value).item(), rel=1e-12)
    assert set(joint.metrics) == set(policy.metrics) | set(critic.metrics) and joint.maxima == policy.maxima


def test_ptx_is_a_weighted_likelihood(batch):
    algorithm = PPO(ptx_coef=0.5, ptx_dataset="texts.jsonl")
    texts = algorithm.weights(batch.replace(advantages=None))
    loss = algorithm.ptx_loss(texts, Outputs(logprobs=batch.old_logprobs))
    nll = -batch.old_logprobs[batch.response_mask].mean()
    assert loss.value.item() == pytest.approx(0.5 * nll.item())
    assert loss.metrics["policy/ptx_loss"].item() == pytest.approx(nll.item())


def test_presets_are_those_of_the_paper_and_of_its_code():
    shared = {"clip": 0.2, "value_clip": 0.2, "gae_lambda": 0.95, "gamma": 1.0, "whiten_advantages": "none",
              "advantage_clip": 0.0, "entropy_coef": 0.0, "critic": "reward", "kl_in": "reward",
              "kl_estimator": "k1", "old_policy": "start", "ptx_coef": 0.0, "epochs": 1, "minibatches": 4}  # fmt: skip
    paper = {"kl_coef": 0.05, "reward_scaling": "normalize", "critic_lr": 1.65e-6}
    code = {
        "kl_coef": 0.01,
        "reward_scaling": "scale",
        "reward_clip": 0.0,
        "critic_lr": 1.5e-6,
        "critic_warmup": 0,
    }
    for preset, numbers in ((PPO_MAX_PAPER, paper), (PPO_MAX_CODE, code)):
        assert {name: getattr(preset, name) for name in shared | numbers} == shared | numbers
    assert PPO_MAX_PAPER.reward_clip > 0 and PPO_MAX_PAPER.critic_warmup > 0


WRONG = [
    ({"epochs": 0}, "integer >= 1"),
    ({"clip": -0.1}, "clip = -0.1 .* number >= 0"),
    ({"gae_lambda": 1.5}, "gae_lambda = 1.5"),
    ({"gae_lambda": (0.95, -0.5)}, "gae_lambda"),
    ({"kl_coef": 0.0, "kl_target": 6.0}, "cannot grow from 0"),
    ({"dual_clip": 0.5}, "dual_clip is 0.5"),
    ({"kl_in": "loss", "kl_estimator": "full"}, "cannot be a loss"),
    ({"kl_estimator": "k3_naive"}, "how a KL in the loss"),
    ({"kl_estimator": "full", "reward_scaling": "whiten"}, "another unit"),
    ({"entropy_target": 2.0}, "needs a weight"),
    ({"entropy_coef": 0.1, "entropy_target": (0.0, 0.01)}, "off the first, which is 0"),
    ({"critic": "trunk", "value_coef": 0.0}, "would learn nothing"),
    ({"ptx_coef": 0.5}, "go together"),
    ({"ptx_dataset": "texts.jsonl"}, "go together"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG)
def test_contradictions_are_refused_with_a_cure(wrong, words):
    with pytest.raises(ConfigError, match=words) as error:
        PPO(**wrong)
    assert error.value.cure


def test_cautions():
    """One caution each; the default has one as well: that its KL is in units of the reward's deviation."""
    quiet = {"reward_scaling": "none", "value_clip": 0.0}
    assert PPO(**quiet).cautions == PPO(kl_in="loss", whiten_advantages="none", **quiet).cautions == ()
    scaled = ("reward_scaling normalize", "reward_scaling normalize", "reward_scaling scale")
    for preset, words in zip((PPO(), PPO_MAX_PAPER, PPO_MAX_CODE), scaled, strict=True):
        (found,) = preset.cautions
        assert found.startswith(words)
    for odd, word in (
        ({"value_clip": 0.2}, "value_clip"),
        ({"reward_scaling": "whiten"}, "the length counts by itself"),
        ({"kl_in": "loss"}, "whiten_advantages divides"),
        ({"gamma": 0.9}, "gamma 0.9"),
        ({"old_policy": "ref"}, "experiment"),
        ({"kl_estimator": "k3"}, "k3 in the reward"),
        ({"kl_in": "loss", "kl_estimator": "k3_naive", "whiten_advantages": "none"}, "another objective"),
        ({"kl_coef": 0.0, "gamma": 0.9, "kl_in": "loss"}, "kl_limit"),
        ({"entropy_coef": 0.1, "clip": 0.0}, "no bound"),
        ({"missing_eos": "mask", "missing_eos_penalty": 2.0}, "missing_eos_penalty 2 has no effect"),
        ({"value_coef": 0.5}, "value_coef 0.5 has no effect"),
    ):
        found = PPO(**(quiet | odd)).cautions
        assert len(found) == 1 and word in found[0]


def test_lambda_by_length_warns_where_responses_are_short():
    for short, words in ((15, "lambda is 0.00"), (40, "lambda is 0.50"), (399, "from 400 tokens")):
        assert words in PPO(gae_lambda="length").caution_at(short), short
        assert PPO(gae_lambda=("length", 1.0)).caution_at(short) and not PPO().caution_at(short)
    assert PPO(gae_lambda="length").caution_at(400) == ""
