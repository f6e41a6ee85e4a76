"""Masks, log-probs, GAE and KL over the gaps that an environment leaves in a row: by hand, and on random turns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import plaudit
from plaudit.data.collate import collate_rollouts
from plaudit.experience import Outputs
from plaudit.functional.advantages import gae, length_lambda, rewards_to_go, token_rewards
from plaudit.functional.weights import loss_weights
from plaudit.records import Prompt, Rollout, Turn


def rollout(prompt: int, turns: list[int], finish: str = "stop", reward: float | None = None) -> Rollout:
    """Turns of so many tokens each, those of the policy and of the environment by turns; tokens count from 1."""
    made, end, start = list[Turn](), prompt, prompt
    for number, length in enumerate(turns):
        end = start + length
        author = "environment" if number % 2 else "policy"
        made.append(Turn(author, start, end, f"t{number}", None if number % 2 else "stop"))
        start = end
    drawn = sum(turns[::2])
    logprobs = tuple(-0.1 * (i + 1) for i in range(drawn))
    row = tuple(range(1, end + 1))
    return Rollout(Prompt("p", "x"), 0, row, tuple(made), logprobs, finish, reward=reward)  # type: ignore[arg-type]


# By hand: two prompt tokens, a call of two tokens, a result of one, an answer of two
#
#   token      1  2  3  4  5  6  7
#   who        -  -  P  P  E  P  P


def test_the_mask_and_the_log_probs_of_one_row() -> None:
    batch = collate_rollouts([rollout(2, [2, 1, 2])], pad_id=0)
    assert batch.tokens.tolist() == [[1, 2, 3, 4, 5, 6, 7]]
    assert batch.response_mask.int().tolist() == [[0, 0, 1, 1, 0, 1, 1]]
    assert batch.sampled_logprobs[0].tolist() == pytest.approx([0, 0, -0.1, -0.2, 0, -0.3, -0.4])
    assert batch.attention_mask.all() and not batch.truncated.any()


def test_gae_steps_over_the_gap() -> None:
    """V5 of the specification with two tokens before it: the value of the next sampled token is the next state's."""
    mask = torch.tensor([[0, 0, 1, 0, 1, 1]]).bool()
    rewards = torch.tensor([[9.0, 9, 0, 9, 0, 1]], dtype=torch.float64)
    values = torch.tensor([[9.0, 9, 0.5, 9, 0.6, 0.7]], dtype=torch.float64)
    advantages, returns = gae(rewards, values, mask)
    assert advantages[0].tolist() == pytest.approx([0, 0, 0.46575, 0, 0.385, 0.3], abs=1e-9)
    assert returns[0].tolist() == pytest.approx([0, 0, 0.96575, 0, 0.985, 1.0], abs=1e-9)


def test_a_gap_of_many_tokens_is_discounted_once() -> None:
    """Gamma counts decisions of the policy: 0.5 from the call to the answer, however long the result is."""
    for gap in (1, 7):
        mask = torch.tensor([[True, *[False] * gap, True]])
        rewards = torch.zeros(1, gap + 2)
        rewards[0, -1] = 4.0
        assert rewards_to_go(rewards, mask, 0.5)[0, [0, -1]].tolist() == [2.0, 4.0]


def test_the_kl_is_paid_for_sampled_tokens_and_the_score_stands_on_the_last_of_them() -> None:
    mask = torch.tensor([[0, 1, 0, 1, 0]]).bool()  # the row ends with two tokens nobody is paid for
    kl = torch.tensor([[7.0, 0.5, 7.0, -0.2, 7.0]])
    assert token_rewards(torch.tensor([2.0]), kl, 0.1, mask)[0].tolist() == pytest.approx([0, -0.05, 0, 2.02, 0])


def test_lengths_count_sampled_tokens() -> None:
    mask = torch.tensor([[1, 0, 0, 1, 1], [1, 1, 1, 1, 1]]).bool()
    assert length_lambda(mask, 0.5).tolist() == pytest.approx([1 - 1 / 1.5, 1 - 1 / 2.5])
    weights = loss_weights(mask, "sequence_mean_token_mean")
    assert weights[0].tolist() == pytest.approx([1 / 6, 0, 0, 1 / 6, 1 / 6])


def test_a_length_penalty_does_not_see_the_result() -> None:
    """DAPO's penalty for 4 of 5 tokens, in a row where the environment wrote another 6."""
    batch = collate_rollouts([rollout(2, [2, 6, 2], reward=1.0), rollout(2, [4], reward=1.0)], 0)
    zero = torch.zeros_like(batch.sampled_logprobs)
    batch = batch.replace(length_limits=torch.tensor([5, 5]), old_logprobs=zero, ref_logprobs=zero)
    credit = plaudit.DAPO(overlong_buffer=0.8).credit(batch, plaudit.DAPO().start())
    assert credit.metrics["group/zero_std_share"] == 1.0, "both are punished alike"


# On random turns

LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=5).filter(lambda lengths: len(lengths) % 2 == 1)
ROLLOUTS = st.lists(
    st.tuples(st.integers(1, 4), LENGTHS, st.sampled_from(["stop", "length"]), st.floats(-2, 2)), min_size=2, max_size=4
)


@given(ROLLOUTS)
def test_views_and_batch_agree_with_the_turns(drawn) -> None:
    rollouts = [rollout(*arguments) for arguments in drawn]
    batch = collate_rollouts(rollouts, pad_id=3)  # a token that also occurs in the rows
    for row, one in enumerate(rollouts):
        width = len(one.tokens)
        assert batch.tokens[row, :width].tolist() == list(one.tokens)
        assert batch.response_mask[row, :width].tolist() == list(one.sampled)
        assert not batch.response_mask[row, width:].any() and int(batch.lengths[row]) == width
        mask = batch.response_mask[row]
        assert batch.tokens[row][mask].tolist() == list(one.response_ids)
        assert batch.sampled_logprobs[row][mask].tolist() == pytest.approx(one.logprobs)
        assert not batch.sampled_logprobs[row][~mask].any()
        assert one.tokens[: len(one.prompt_ids)] == one.prompt_ids and not any(one.sampled[: len(one.prompt_ids)])
        assert one.response == "".join(turn.text for turn in one.policy_turns)
        assert bool(batch.truncated[row]) == (one.finish_reason == "length")


def signals(rollouts: list[Rollout]):
    """A batch with old and reference log-probs and values that depend on the place among the sampled tokens only."""
    batch = collate_rollouts(rollouts, pad_id=0)
    mask = batch.response_mask
    place = mask.cumsum(-1).double()  # in fp64: whitening divides what differs by rounding alone by next to nothing
    noise = torch.where(mask, 0.0, float("nan"))  # whoever reads between the turns is found out
    return batch.replace(
        old_logprobs=-0.1 * place + noise,
        ref_logprobs=-0.12 * place + noise,
        values=0.05 * place + noise,
        full_kl=0.01 * place + noise,
        rewards=batch.rewards.double(),
        last_values=torch.full((len(batch),), 0.3, dtype=torch.float64),
        length_limits=torch.full((len(batch),), 20),
        greedy_rewards=torch.zeros(len(batch), dtype=torch.float64),
        greedy_truncated=torch.zeros(len(batch), dtype=torch.bool),
        group_ids=torch.zeros(len(batch), dtype=torch.int64),
    )


def without_gaps(one: Rollout) -> Rollout:
    """The same rollout as if the policy had written its tokens in one go."""
    made = Rollout.single(
        one.prompt, 0, one.prompt_ids, one.response_ids, one.logprobs, one.response, one.finish_reason
    )
    return replace(made, reward=one.reward)


ALGORITHMS = [
    plaudit.PPO(),
    plaudit.PPO(gamma=0.9, gae_lambda=(0.95, 1.0), reward_scaling="whiten", entropy_coef=0.1),
    plaudit.PPO(kl_estimator="full"),
    plaudit.PPO(missing_eos="bootstrap"),
    plaudit.PPO(kl_in="loss", kl_estimator="k2", gae_lambda="length"),
    plaudit.REINFORCE(gamma=0.9),
    plaudit.REINFORCEPlusPlus(),
    plaudit.RLOO(),
    plaudit.GRPO(),
    plaudit.DrGRPO(),
    plaudit.DAPO(filter_overlong=True),
    plaudit.GSPO(),
    plaudit.CISPO(),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: type(a).__name__)
@settings(max_examples=25)
@given(drawn=ROLLOUTS)
def test_a_gap_changes_neither_credit_nor_loss(algorithm, drawn) -> None:
    """Everything that is computed of sampled tokens is what it is without the environment's tokens between them."""
    rollouts = [rollout(*arguments) for arguments in drawn]
    with_gaps, plain = signals(rollouts), signals([without_gaps(r) for r in rollouts])
    results = []
    for batch in (with_gaps, plain):
        credit = algorithm.credit(batch, algorithm.start())
        learned = algorithm.weights(credit.batch)
        moved = torch.where(learned.response_mask, -0.11 * learned.response_mask.cumsum(-1).double(), 0.0)
        out = Outputs(logprobs=moved, entropy=0.5 * learned.response_mask, values=moved)
        loss = algorithm.loss(learned, out)
        results.append((credit, learned, loss))
    (credit, learned, loss), (plain_credit, plain_learned, plain_loss) = results
    mask, plain_mask = learned.response_mask, plain_learned.response_mask
    assert mask.sum() == plain_mask.sum()
    torch.testing.assert_close(learned.advantages[mask], plain_learned.advantages[plain_mask])
    torch.testing.assert_close(learned.loss_weights[mask], plain_learned.loss_weights[plain_mask])
    torch.testing.assert_close(loss.value, plain_loss.value)
    assert credit.metrics == pytest.approx(plain_credit.metrics, nan_ok=True, abs=1e-5, rel=1e-4)
    found, expected = ({k: float(v) for k, v in x.metrics.items()} for x in (loss, plain_loss))
    assert found == pytest.approx(expected, abs=1e-5, rel=1e-4)
    if learned.returns is not None:
        torch.testing.assert_close(learned.returns[mask], plain_learned.returns[plain_mask])
