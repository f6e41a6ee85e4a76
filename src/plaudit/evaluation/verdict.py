"""Did it work? One sentence, the figures behind it, and what to be wary of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from plaudit.evaluation.rundir import Run
from plaudit.evaluation.words import THIN, number, percent, signed, span
from plaudit.runs.files import Row

Tone = Literal["good", "flat", "bad"]
MAX_KL = 10.0
"""Nats per response; beyond, the reward model is asked about texts it has never seen (Gao et al. 2023)."""
ENOUGH_PAIRS = 100
INTERVAL = f"95{THIN}% interval"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The headline, its tone, and one paragraph of evidence."""

    tone: Tone
    headline: str
    evidence: str


NOT_EVALUATED = Verdict(
    "flat", "Not evaluated.", "There are no held-out rows, so nothing can be said about it."
)


def verdict(run: Run) -> Verdict:
    """The verdict on a run of any kind."""
    return {
        "sft": _sft, "reward": _reward_model, "dpo": _preferences, "best_of_n": _best_of_n, "rl": _policy
    }[run.kind](run)  # fmt: skip


def warnings(run: Run) -> list[str]:
    """What to be wary of, most serious first; alarms of the run itself are part of it."""
    found = {
        "sft": _sft_warnings, "reward": _reward_warnings, "dpo": _preference_warnings, "rl": _policy_warnings
    }.get(run.kind, _none)(run)  # fmt: skip
    alarms = [str(e.get("message") or e.get("reason") or "") for e in run.events if e.get("event") == "alarm"]
    if run.reason and run.reason != "finished":
        found.insert(0, f"The run did not finish: {run.reason}")
    found += [
        f"Put back to {run.unit} {e.get('step')}: {e.get('why', 'it was better there')}."
        for e in run.events
        if e.get("event") == "rolled back"
    ]
    return found + [f"During the run: {alarm}" for alarm in dict.fromkeys(alarms) if alarm]


def _sft(run: Run) -> Verdict:
    first, last, held = run.start("loss"), run.end("loss"), run.summary.get("heldout_loss")
    if first is None or last is None:
        return Verdict("flat", "Nothing was trained yet.", "The run has recorded no loss.")
    evidence = f"The training loss went from {number(first)} to {number(last)} nats per token."
    if held is not None:
        rows = run.summary.get("heldout_rows")
        on = f" On {rows} held-out demonstrations" if rows else " On held-out demonstrations"
        evidence += f"{on} it is {number(held)}: a perplexity of {number(run.summary.get('perplexity'))}."
    if last < first:
        return Verdict("good", "It learned to imitate.", evidence)
    return Verdict("bad", "It did not learn to imitate.", evidence)


def _sft_warnings(run: Run) -> list[str]:
    last, held = run.end("loss"), run.summary.get("heldout_loss")
    if last is not None and held is not None and held > 1.2 * last + 0.05:
        return [
            f"Overfitting: the held-out loss is {number(held)}, the training loss {number(last)}. "
            "Fewer epochs, or more demonstrations."
        ]
    return []


def _reward_model(run: Run) -> Verdict:
    card = run.summary
    accuracy, interval = card.get("accuracy"), card.get("accuracy_ci")
    if accuracy is None or interval is None:
        return NOT_EVALUATED
    rule, baseline = length_rule(card)
    evidence = (
        f"The {INTERVAL} is {span(interval, 'percent')}, on {card.get('heldout_pairs')} held-out rows. "
        f"{rule} would be right {percent(baseline)} of the time. "
        f"Kendall’s τ is {number(card.get('kendall_tau'))}."
    )
    over = card.get("over_length_baseline_ci")
    if interval[0] <= 0.5:
        return Verdict("bad", "It does not rank better than a coin.", evidence)
    if over is not None and over[0] <= 0:
        return Verdict("flat", f"It ranks {percent(accuracy)} right, but so might length alone.", evidence)
    return Verdict("good", f"It ranks {percent(accuracy)} of unseen pairs as the annotators did.", evidence)


def length_rule(card: Row) -> tuple[str, float | None]:
    """The rule on length alone that does best on the held-out rows, in words, and its accuracy."""
    accuracy = card.get("length_baseline_accuracy")
    if card.get("kendall_tau_from") == "labels" or accuracy is None:
        return "The best rule on length", accuracy
    if accuracy >= 0.5:
        return "Always taking the longer one", accuracy
    return "Always taking the shorter one", 1 - accuracy


def _reward_warnings(run: Run) -> list[str]:
    card, found = run.summary, []
    pairs, ece, rho = card.get("heldout_pairs"), card.get("ece"), card.get("score_length_spearman")
    if pairs is not None and pairs < ENOUGH_PAIRS:
        found.append(f"Only {pairs} held-out pairs: the interval is wide. Hold out more, or collect more.")
    if rho is not None and abs(rho) > 0.5:
        found.append(
            f"Scores follow length (Spearman {signed(rho)}): a policy may learn to write {_more(rho)}."
        )
    if ece is not None and ece > 0.1 and (pairs or 0) >= ENOUGH_PAIRS:
        found.append(
            f"It is badly calibrated (expected calibration error {number(ece)}): do not trust its margins."
        )
    return found


def _more(rho: float) -> str:
    return "more instead of better" if rho > 0 else "less instead of better"


def _preferences(run: Run) -> Verdict:
    card = run.summary
    accuracy, interval = card.get("accuracy"), card.get("accuracy_ci")
    if accuracy is None or interval is None:
        return NOT_EVALUATED
    evidence = (
        f"Its log-probabilities rank {percent(accuracy)} of {card.get('heldout_rows')} held-out rows as people did; "
        f"the {INTERVAL} is {span(interval, 'percent')}. The held-out loss went from "
        f"{number(card.get('heldout_loss_before'))} to {number(card.get('heldout_loss'))}. "
        "Whether its responses are better, a judge or people have to say."
    )
    if interval[0] > 0.5:
        return Verdict("good", f"It ranks {percent(accuracy)} of unseen rows as people did.", evidence)
    if interval[1] < 0.5:
        return Verdict("bad", "It ranks the wrong way round.", evidence)
    return Verdict("flat", "It does not rank surely better than a coin.", evidence)


def _preference_warnings(run: Run) -> list[str]:
    card, found = run.summary, []
    rows, first, last = card.get("heldout_rows"), card.get("heldout_loss_before"), card.get("heldout_loss")
    if rows and rows < ENOUGH_PAIRS:
        found.append(f"Only {rows} held-out rows: the interval is wide. Hold out more, or collect more.")
    if first is not None and last is not None and last > first:
        found.append(
            f"The held-out loss rose from {number(first)} to {number(last)}: overfitting, or too large steps. "
            "Fewer epochs, or a lower lr."
        )
    accuracy, trained = card.get("accuracy"), run.end("rewards/accuracies")
    if accuracy is not None and trained is not None and trained > accuracy + 0.2:
        found.append(
            f"{percent(trained)} of the training rows are ranked right, but {percent(accuracy)} of unseen ones."
        )
    return found


def _best_of_n(run: Run) -> Verdict:
    card = run.summary
    judge = "gold" if card.get("gold_gain") is not None else "reward"
    gain, interval, n = card.get(f"{judge}_gain"), card.get(f"{judge}_gain_ci"), card.get("n")
    if gain is None or interval is None:
        return Verdict("flat", "Not finished.", "No responses were compared yet.")
    evidence = (
        f"Over {card.get('prompts')} prompts the {judge} rose by {signed(gain)} against one sample, {INTERVAL} "
        f"{span(interval, 'signed')}, at a KL of at most {number(card.get('kl_bound'))} nats. "
        f"It wins {percent(card.get('win_rate'))} of the comparisons with one sample by the reward."
    )
    if interval[0] > 0:
        return Verdict("good", f"The best of {n} is better than one sample.", evidence)
    return Verdict("flat", f"The best of {n} is not surely better than one sample.", evidence)


def _none(run: Run) -> list[str]:
    return []


def _policy(run: Run) -> Verdict:
    card = run.summary
    judge = "gold" if card.get("gold_difference") is not None else "reward"
    difference, interval = card.get(f"{judge}_difference"), card.get(f"{judge}_difference_ci")
    if difference is None or interval is None:
        moved = f"from {signed(run.start('reward/mean'))} to {signed(run.end('reward/mean'))}"
        return Verdict(
            "flat",
            "Not evaluated on held-out prompts.",
            f"In training the reward went {moved}; without held-out prompts this is no proof of anything.",
        )
    if card.get("evaluated_step") == 0:
        why = next((str(e.get("why", "")) for e in run.events if e.get("event") == "rolled back"), "")
        return Verdict("bad", "It was put back to where it started.", f"No evaluation was better: {why}.")
    evidence = _evidence(run, judge)
    if interval[0] > 0:
        return Verdict("good", "It got better." if judge == "gold" else "The reward rose.", evidence)
    if interval[1] < 0:
        return Verdict("bad", "It got worse." if judge == "gold" else "The reward fell.", evidence)
    return Verdict("flat", "No clear change.", evidence)


def _evidence(run: Run, judge: str) -> str:
    card = run.summary
    name = {"gold": "gold reward, a judge it was never trained on,", "reward": "reward"}[judge]
    before, after = number(card.get(f"{judge}_mean_before")), number(card.get(f"{judge}_mean"))
    change = signed(card.get(f"{judge}_difference"))
    sure = span(card.get(f"{judge}_difference_ci"), "signed")
    wins, wins_sure = percent(card.get("win_rate")), span(card.get("win_rate_ci"), "percent")
    kl = f", at a KL of {number(card['kl'], 1)} nats per response" if card.get("kl") is not None else ""
    text = (
        f"On {card.get('prompts')} held-out prompts the {name} went from {before} to {after}: {change}, "
        f"{INTERVAL} {sure}. Against its own start it wins {wins} of the comparisons ({wins_sure}){kl}."
    )
    if judge == "reward":
        text += (
            " This is the reward it was trained on: it shows that learning works. Whether the responses are "
            "better, a second judge or people have to say."
        )
    return text


def _policy_warnings(run: Run) -> list[str]:
    return [*_hacking(run), *_texts(run), *_optimisation(run)]


def _hacking(run: Run) -> list[str]:
    """Signs that the reward is pleased and nobody else."""
    card, found = run.summary, []
    gold, reward = card.get("gold_difference_ci"), card.get("reward_difference_ci")
    if gold and reward and reward[0] > 0 and gold[1] < 0:
        found.append(
            f"Over-optimised: the reward rose ({signed(card.get('reward_difference'))}) while the gold "
            f"reward fell ({signed(card.get('gold_difference'))}). Raise kl_coef, or stop earlier."
        )
    kl = card.get("kl")
    if kl is not None and kl > MAX_KL:
        found.append(
            f"The KL is {number(kl, 1)} nats per response, over {MAX_KL:g}: far from the texts the reward "
            "knows. Raise kl_coef, or stop earlier."
        )
    before, after = card.get("length_mean_before"), card.get("length_mean")
    if before and after and after > 1.5 * before:
        found.append(
            f"Responses are {number(after / before, 1)} times as long as before ({number(before, 0)} to "
            f"{number(after, 0)} tokens): look at the samples, and at what the reward thinks of length."
        )
    if before and after and after < 0.6 * before:
        found.append(
            f"Responses shrank from {number(before, 0)} to {number(after, 0)} tokens: look at the samples."
        )
    rho, rho_before = card.get("reward_length_spearman"), card.get("reward_length_spearman_before")
    if rho is not None and rho_before is not None and rho - rho_before > 0.2 and rho > 0.3:
        found.append(
            f"Reward follows length more than before (Spearman {signed(rho_before)}, now {signed(rho)})."
        )
    return found


def _texts(run: Run) -> list[str]:
    """Signs in the responses themselves."""
    card, found = run.summary, []
    eos = card.get("eos_rate")
    if eos is not None and eos < 0.95:
        found.append(
            f"Only {percent(eos)} of the responses end by themselves; the others ran into max_new_tokens, "
            "and are judged cut off."
        )
    ratio = card.get("perplexity_ratio")
    if ratio is not None and ratio > 1.5:
        found.append(
            f"The reference finds the responses {number(ratio, 1)} times as perplexing: perhaps gibberish."
        )
    if ratio is not None and ratio < 0.5:
        found.append(
            f"Perplexity under the reference fell to {percent(ratio)}: perhaps bland or repetitive text."
        )
    first, last = card.get("distinct_2_before"), card.get("distinct_2")
    if first and last is not None and last < 0.7 * first:
        found.append(
            f"Diversity fell: {percent(last)} of the word pairs are distinct, {percent(first)} at the start."
        )
    return found


def _optimisation(run: Run) -> list[str]:
    """Signs in the curves."""
    found = []
    entropy, entropy_start = run.end("policy/entropy"), run.start("policy/entropy")
    if entropy is not None and entropy_start and entropy < 0.25 * entropy_start:
        found.append(f"Entropy collapsed from {number(entropy_start)} to {number(entropy)} nats per token.")
    clipped = run.end("policy/clip_fraction")
    if clipped is not None and clipped > 0.4:
        found.append(f"{percent(clipped)} of the tokens are clipped: the steps are too large. Lower lr.")
    explained = run.end("critic/explained_variance")
    if explained is not None and explained < 0:
        found.append(
            f"The critic explains nothing (explained variance {number(explained)}): raise critic_lr."
        )
    failed = run.end("reward/error_share")
    if failed is not None and failed > 0.01:
        found.append(f"The reward failed on {percent(failed, 1)} of the last responses.")
    return found
