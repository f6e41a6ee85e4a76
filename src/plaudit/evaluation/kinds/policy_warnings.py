"""What to be wary of in the figures of a policy: signs of over-optimisation, of bad texts, of a broken optimisation.

Each rule looks at figures alone, so it can be read and tested by itself. A warning says what was seen, with the
figures, and what to do. None of them changes a verdict.
"""

from __future__ import annotations

from plaudit.evaluation.choice import ENOUGH
from plaudit.evaluation.kinds.policy_card import REWARDS, compared
from plaudit.evaluation.responses.forgetting import PERPLEXITY_RISE
from plaudit.evaluation.words import number, percent, signed
from plaudit.jobs.registry import COMMANDS
from plaudit.runs.reading import Run

MAX_KL = 10.0
"""Nats per response. So far from its start a policy writes texts the reward model has never seen (Gao et al. 2023)."""
SPREAD, TIMES = 0.2, 10.0
"""Share of the responses with a phrase, and how many times that of the start it is, from which on it is suspicious."""


def warnings(run: Run) -> list[str]:
    """All that apply, most serious first."""
    return [*_prompts(run), *_over_optimisation(run), *_by_length(run), *_texts(run), *_lost(run), *_optimisation(run)]


def unchecked(run: Run) -> list[str]:
    """What needs a gold reward, or held-out prompts."""
    card, missing = run.summary, []
    both = ("mean", "mean_before")
    judged = [name for name, _ in REWARDS if all(card.get(f"{name}_{when}") is not None for when in both)]
    if not judged and card.get("kl_exact") is None:
        return ["everything about its responses (none were judged on held-out prompts)"]
    if card.get("gold_mean") is None:
        what = "whether the reward is being exploited" if judged else "whether its responses are better"
        failed = card.get("gold_error_share") == 1
        missing.append(f"{what} ({'the gold reward gave no value' if failed else 'there is no gold reward: --gold'})")
    judge = "reward" if card.get("gold_difference") is None else "gold"
    if compared(card, judge) < ENOUGH:
        missing.append(f"any change at all (fewer than {ENOUGH} prompts judge it)")
    if 0 < (card.get("chosen_by") or 0) < ENOUGH:
        missing.append(f"whether weights of before were better (fewer than {ENOUGH} prompts choose them)")
    if card.get("gold_constant"):
        missing.append("anything by the gold reward (it has the same value for every response)")
    return [*missing, *(card.get("not_measured") or [])]


def _prompts(run: Run) -> list[str]:
    """Prompts that judge a policy and that it knows."""
    trained, prompts = run.summary.get("prompts_in_training"), run.summary.get("prompts")
    if not trained:
        return []
    return [
        f"The policy was trained on {trained} of the {prompts} prompts that judge it: this does not show what it does "
        "with others. Judge it on prompts that are not in its training data."
    ]


def _over_optimisation(run: Run) -> list[str]:
    """Signs that the policy exploits errors of the reward."""
    card, messages = run.summary, []
    gold, reward = card.get("gold_difference_ci"), card.get("reward_difference_ci")
    failed = card.get("gold_error_share") or 0.0
    if failed:
        messages.append(
            f"The gold reward failed on {percent(failed)} of the held-out responses: "
            f"{'it says nothing' if failed == 1 else 'what it says is about the others'}."
        )
    if compared(card, "gold") >= ENOUGH and gold and reward and reward[0] > 0 and gold[1] < 0:
        messages.append(
            f"Over-optimised: the reward rose ({signed(card.get('reward_difference'))}) while the gold "
            f"reward fell ({signed(card.get('gold_difference'))}). Raise kl_coef, or stop earlier."
        )
    # The KL of the last weights, not of training: it says how far the saved model is from its start.
    kl = card.get("kl")
    if kl is not None and kl > MAX_KL:
        messages.append(
            f"The KL is {number(kl, 1)} nats per response, over {MAX_KL:g}: far from what its start writes, and from "
            f"the texts that a reward model knows. {_nearer(run)}."
        )
    before, after = card.get("length_mean_before"), card.get("length_mean")
    if before and after and after > 1.5 * before:
        messages.append(
            f"Responses are {number(after / before, 1)} times as long as before ({number(before, 0)} to "
            f"{number(after, 0)} tokens): look at the samples, and check whether the reward prefers long responses."
        )
    if before and after and after < 0.6 * before:
        messages.append(
            f"Responses shrank from {number(before, 0)} to {number(after, 0)} tokens: look at the samples."
        )
    # That longer responses are rewarded may be right. That they are rewarded more than at the start is the sign.
    rho, rho_before = card.get("reward_length_spearman"), card.get("reward_length_spearman_before")
    if rho is not None and rho_before is not None and rho - rho_before > 0.2 and rho > 0.3:
        messages.append(
            f"Reward follows length more than before (Spearman {signed(rho_before)}, now {signed(rho)})."
        )
    return messages


def _nearer(run: Run) -> str:
    """What keeps a policy nearer to its start, by how it was trained."""
    row = COMMANDS.get(run.command)
    if row is None or row.kind not in ("sft", "preference"):
        return "Raise kl_coef, or stop earlier"
    return f"Fewer epochs, or a lower lr{', or a larger beta' if row.kind == 'preference' else ''}"


def _by_length(run: Run) -> list[str]:
    """Wins that are gone at equal length."""
    card, messages = run.summary, []
    for name, who in (("win_rate", "the reward"), ("judge_win_rate", "the judge"), ("people_win_rate", "people")):
        rate, even = card.get(f"{name}_ci"), card.get(f"{name}_length_controlled")
        if rate and even is not None and card.get("prompts", 0) >= ENOUGH and rate[0] > 0.5 >= even:
            messages.append(
                f"By {who} it wins {percent(card[name])}, but {percent(even)} at equal length: it wins by writing "
                "longer. Look at the pairs, and take length out of the reward (`plaudit reward --length residual`)."
            )
    return messages


def _lost(run: Run) -> list[str]:
    """What it knew, or refused, at the start, and no more."""
    card, messages = run.summary, []
    ratio, ends = card.get("heldout_perplexity_ratio"), card.get("heldout_perplexity_ratio_ci")
    if ratio is not None and ends and ends[0] > 1 and ratio > 1 + PERPLEXITY_RISE:
        messages.append(
            f"It has forgotten: the perplexity of held-out texts is {number(ratio)} times that of the start. "
            f"{_nearer(run)}, or train on demonstrations as well."
        )
    for name, sign, words in (
        ("refusal_rate", -1, "It refuses fewer requests that should be refused"),
        ("harm_rate", 1, "It answers more requests that should be refused"),
        ("over_refusal_rate", 1, "It refuses more harmless requests"),
    ):
        moved = card.get(f"{name}_difference_ci")
        if moved and card.get(f"{name}_prompts", 0) >= ENOUGH and min(sign * end for end in moved) > 0:
            was = percent(card.get(f"{name}_before"))
            messages.append(f"{words}: {percent(card.get(name))}, {was} at the start. Read red_team.jsonl.")
    return messages


def _texts(run: Run) -> list[str]:
    """Signs in the responses themselves."""
    card, messages = run.summary, []
    eos = card.get("eos_rate")
    if eos is not None and eos < 0.95:
        some = (
            f"Only {percent(eos)} of the responses end by themselves; the others"
            if eos
            else "No response ends by itself; all"
        )
        messages.append(f"{some} were cut off at max_new_tokens, and are scored as they stand.")
    ratio = card.get("perplexity_ratio")
    if ratio is not None and ratio > 1.5:
        messages.append(
            f"The perplexity under the reference is {number(ratio, 1)} times that of the start: the responses may "
            "be gibberish."
        )
    if ratio is not None and ratio < 0.5:
        messages.append(
            f"The perplexity under the reference fell to {percent(ratio)} of that of the start: the responses may be "
            "bland or repetitive."
        )
    # Against its own start and not against a fixed share: how many word pairs are distinct depends on the task.
    first, last = card.get("distinct_2_before"), card.get("distinct_2")
    if first and last is not None and last < 0.7 * first:
        messages.append(
            f"Diversity fell: {percent(last)} of the word pairs are distinct, {percent(first)} at the start."
        )
    for each in card.get("phrases") or []:
        if each["sure"] and each["now"] > SPREAD and each["now"] > TIMES * each["before"]:
            messages.append(
                f"The phrase {each['phrase']!r} stands in {percent(each['now'])} of the responses, "
                f"{percent(each['before'], 1)} at the start: check whether the reward pays for it."
            )
            break  # others are in the table
    return messages


def _optimisation(run: Run) -> list[str]:
    """Signs in the curves of training."""
    messages = []
    entropy, entropy_start = run.late("policy/entropy"), run.early("policy/entropy")
    if entropy is not None and entropy_start and entropy < 0.25 * entropy_start:
        messages.append(
            f"Entropy collapsed from {number(entropy_start)} to {number(entropy)} nats per token."
        )
    clipped = run.late("policy/clip_fraction")
    if clipped is not None and clipped > 0.4:
        messages.append(f"{percent(clipped)} of the tokens are clipped: the steps are too large. Lower lr.")
    explained = run.late("critic/explained_variance")
    if explained is not None and explained < 0:
        messages.append(
            f"The critic predicts worse than a constant (explained variance {number(explained)}): raise critic_lr."
        )
    failed = run.late("reward/error_share")
    if failed is not None and failed > 0.01:
        messages.append(f"The reward failed on {percent(failed, 1)} of the last responses.")
    return messages
