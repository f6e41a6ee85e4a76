"""Policies trained with a reward: before against after on the same held-out prompts, never the training reward alone.

Where there is a gold reward (a second reward that is never trained on) it decides, because the reward that was trained
on also rises where the policy only exploits its errors (Gao et al. 2023).
"""

from __future__ import annotations

from functools import partial

import numpy as np
from markupsafe import Markup

from plaudit.errors import DataError
from plaudit.evaluation import charts
from plaudit.evaluation.choice import ENOUGH
from plaudit.evaluation.frontier import Fit, frontier
from plaudit.evaluation.kinds.policy_card import REWARDS, card, compared
from plaudit.evaluation.kinds.policy_card import judged as judged_of
from plaudit.evaluation.kinds.policy_tables import tables
from plaudit.evaluation.kinds.policy_warnings import unchecked, warnings
from plaudit.evaluation.page import INTERVAL, Chart, Figure, Kind, Tone, Verdict
from plaudit.evaluation.words import number, percent, signed, span
from plaudit.runs.files import EVALUATION, Row
from plaudit.runs.reading import Run


def verdict(run: Run) -> Verdict:
    """What was found on the prompts kept for the end, by the gold reward where there is one."""
    card = run.summary
    judge = "gold" if card.get("gold_difference") is not None else "reward"
    judged = card["verdict"] if "verdict" in card else judged_of(card)
    if judged is None:
        return _not_judged(run)
    evidence = _evidence(run, judge)
    if card.get("evaluated_step") == 0:
        whys = [str(e.get("why", "")) for e in run.standing if e.get("event") == "rolled back"]
        why = whys[-1] if whys else ""  # the last one is to the start; one before it may be to the best iteration
        return Verdict("bad", "It was put back to where it started.", f"What was trained is not handed out: {why}.")
    rose: tuple[Tone, str] = ("good", "It got better." if judge == "gold" else "The reward rose.")
    if judge == "reward" and _is_doubted(card):  # nobody else has judged it, so this is not good news
        rose = ("flat", "The reward rose, but there were alarms.")
    headline: dict[str, tuple[Tone, str]] = {
        "better": rose,
        "worse": ("bad", "It got worse." if judge == "gold" else "The reward fell."),
        "no_change": ("flat", "No clear change."),
        "too_few": ("flat", "Too few prompts to say."),
    }
    tone, words = headline[judged]
    if card.get("prompts_in_training") and judged in ("better", "worse"):
        words = words.replace(".", " on prompts that it was trained on.")
    return Verdict(tone, words, evidence)


OF_SAMPLING = ("stale", "mismatch")
"""Kinds of alarms that are about how responses are drawn, and not about what they are worth."""


def _is_doubted(card: Row) -> bool:
    """Whether an alarm says that the reward may be exploited, or a limit or failure ended the run."""
    alarms = [alarm for alarm in card.get("alarms") or [] if alarm["kind"] not in OF_SAMPLING]
    return bool(alarms) or card.get("ended") in ("limit", "alarm")


def _not_judged(run: Run) -> Verdict:
    """Where the weights that were handed out were not sampled on prompts kept for the end."""
    if not run.metrics and run.summary.get("evaluated_step"):
        return _unscored(run.summary)
    if not run.metrics:
        return Verdict("flat", "Nothing was trained yet.", "The run has recorded no iteration.")
    moved = f"from {signed(run.first('reward/mean'))} to {signed(run.last('reward/mean'))}"
    if "evaluated_step" not in run.summary:
        why = "without held-out prompts this does not show that it got better"
    elif not run.reason:
        why = "it has not ended yet, or was killed, so its weights were not judged on the held-out prompts"
    else:
        why = "it ended before its weights were judged on the held-out prompts"
    return Verdict("flat", "Not evaluated on held-out prompts.", f"In training the reward went {moved}; {why}.")


def _unscored(card: Row) -> Verdict:
    """Where a policy was sampled anew and no reward has judged what it wrote."""
    failed = card.get("gold_error_share") == 1
    why = "The gold reward gave no value" if failed else "No reward was named"
    moved = f"On {card.get('prompts')} prompts it is at a KL of {number(card.get('kl'), 1)} nats per response."
    wins = [
        f" By {who} it wins {percent(card[f'{name}_win_rate'])} ({span(card.get(f'{name}_win_rate_ci'), 'percent')}) "
        "of the comparisons with its start."
        for name, who in (("judge", "a judge of pairs"), ("people", "people"))
        if card.get(f"{name}_win_rate") is not None
    ]
    more = f"{'mend it' if failed else 'name one with --gold'}, or let people compare its pairs."
    evidence = f"{why}, so no figure says whether its responses are better than those of its start: {more} {moved}"
    return Verdict("flat", "Measured, and judged by no reward.", evidence + "".join(wins))


def _evidence(run: Run, judge: str) -> str:
    card = run.summary
    name = {"gold": "gold reward, on which it was never trained,", "reward": "reward"}[judge]
    before, after = number(card.get(f"{judge}_mean_before")), number(card.get(f"{judge}_mean"))
    change = signed(card.get(f"{judge}_difference"))
    interval = span(card.get(f"{judge}_difference_ci"), "signed")
    wins, wins_interval = percent(card.get("win_rate")), span(card.get("win_rate_ci"), "percent")
    kl = f", at a KL of {number(card['kl'], 1)} nats per response" if card.get("kl") is not None else ""
    text = (
        f"On {_which_prompts(card, judge)} the {name} went from {before} to {after}: {change}"
        f"{f', {INTERVAL} {interval}' if interval else ''}. Against its own start it wins {wins} of the comparisons "
        f"({wins_interval}){kl}."
    )
    if card.get("verdict") == "too_few":
        text += f" With fewer than {ENOUGH} prompts no difference can be told from chance: give more --eval-prompts."
    if card.get("end_selection") is not None and card.get("evaluated_step") == card.get("peak_step"):
        text += _put_back(card, judge)
    if judge == "gold":
        text += _bought(card)
    else:
        failed = card.get("gold_error_share") == 1
        more = "mend the gold reward, which gave no value" if failed else "give a gold reward"
        text += (
            " This is the reward it was trained on: it shows that learning works. It does not show that the "
            f"responses are better; for that, {more}, or let people compare them."
        )
    return text


def _put_back(card: Row, judge: str) -> str:
    """Why the weights are not the last ones."""
    peak, end = number(card.get("peak_selection")), number(card["end_selection"])
    interval = card.get("peak_over_end_ci")
    if interval and not (interval[0] or 0.0) > 0:
        return (
            f" These are the weights after iteration {card['peak_step']}: the {judge} on the other held-out prompts "
            f"was {peak} there and {end} after iteration {card.get('end_step')}, no clear difference "
            f"({INTERVAL} {span(interval, 'signed')}). After an alarm the earlier weights are handed out even so."
        )
    return (
        f" These are the weights after iteration {card['peak_step']}: by iteration {card.get('end_step')} the "
        f"{judge} on the other held-out prompts had fallen from {peak} to {end}."
    )


def _which_prompts(card: Row, judge: str) -> str:
    """Which prompts judge, in words: what is said of the policy holds for such prompts."""
    prompts, trained, chosen = compared(card, judge), card.get("prompts_in_training"), card.get("prompts_in_choice")
    if trained:
        return f"{prompts} prompts, {trained} of which it was trained on,"
    if chosen:
        return f"{prompts} held-out prompts, by {chosen} of which its weights were chosen as well,"
    if card.get("judged_apart"):
        return f"{prompts} held-out prompts that took no part in choosing the weights"
    if "prompts_in_training" in card and trained is None:
        return f"{prompts} prompts (whether it was trained on them is not known)"
    return f"{prompts} held-out prompts"


LEVEL = 0.1
"""Share of the whole change of the gold reward within which it counts as level."""


def _bought(card: Row) -> str:
    """What the reward rose by beside the gold reward, and since when the gold reward has not followed it."""
    points = [point for point in card.get("curve") or [] if "gold" in point and "reward" in point]
    if len(points) < 3:
        return ""
    first, last = points[0], points[-1]
    gold, reward = last["gold"] - first["gold"], last["reward"] - first["reward"]
    text = (
        f" In the evaluations of training the reward changed by {signed(reward)} and the gold reward by "
        f"{signed(gold)}. The gold reward is a second reward that training never sees. Both err, in other places: what "
        "a policy gains by the one and not by the other, it may have gained from an error."
    )
    for known in card.get("reward_models") or []:
        text += (
            f" The reward model ranks {percent(known['accuracy'])} ({span(known['accuracy_ci'], 'percent')}) of "
            f"{known['heldout_pairs']} held-out pairs as people did: what it cannot tell apart, it cannot teach."
        )
    near = LEVEL * abs(gold)
    level = len(points) - 1
    while level and abs(points[level - 1]["gold"] - last["gold"]) <= near:
        level -= 1
    since = last["reward"] - points[level]["reward"]
    if level < len(points) - 2 and since > LEVEL * abs(reward):
        text += (
            f" Since iteration {points[level]['step']} the gold reward has been level, and the reward has risen by "
            f"{signed(since)} more."
        )
    return text


def training(run: Run) -> Verdict:
    """What training did: a chapter of its own on the page of several runs."""
    climb = f"{signed(run.first('reward/mean'))} to {signed(run.last('reward/mean'))}"
    kl = number(run.last("objective/kl"), 1)
    evidence = (
        f"In training the reward went from {climb}; the KL to its start reached {kl} nats per response."
    )
    # Flat whatever the reward did: that it rises in training shows that the optimizer works, and no more.
    return Verdict("flat", "It was trained on the reward.", evidence)


def figures(run: Run) -> list[Figure]:
    """Rewards, win rate and KL on held-out prompts; the training reward where nothing was evaluated."""
    card = run.summary
    if "evaluated_step" not in card:
        return [
            Figure(
                "Reward",
                signed(run.last("reward/mean")),
                f"was {signed(run.first('reward/mean'))}, in training",
            )
        ]
    items = []
    for name, label in REWARDS:
        if card.get(f"{name}_mean") is None:
            continue
        moved = span(card.get(f"{name}_difference_ci"), "signed")
        note = f"was {number(card.get(f'{name}_mean_before'))}; change {moved}" if moved else ""
        items.append(Figure(label, number(card[f"{name}_mean"]), note))
    if card.get("win_rate") is not None:
        items.append(
            Figure("Wins against its start", percent(card["win_rate"]), span(card["win_rate_ci"], "percent"))
        )
    if card.get("kl") is not None:
        items.append(
            Figure("KL to the start", number(card["kl"], 1), f"nats; {span(card.get('kl_ci'), digits=1)}")
        )
    if card.get("kl_coef_in_force") is not None:
        items.append(
            Figure("KL coefficient in force", number(card["kl_coef_in_force"], 3), "in units of the reward")
        )
    return items + _text_figures(card)


def _text_figures(card: Row) -> list[Figure]:
    """Figures of the responses themselves, each with what it was before."""
    items = []
    for name, label, say in (
        ("length_mean", "Length in tokens", partial(number, digits=1)),
        ("eos_rate", "Stops by itself", percent),
        ("distinct_2", "Distinct word pairs", percent),
    ):
        if card.get(name) is not None:
            before = card.get(f"{name}_before")
            items.append(Figure(label, say(card[name]), f"was {say(before)}" if before is not None else ""))
    if card.get("perplexity_ratio") is not None:
        items.append(
            Figure("Perplexity ratio", number(card["perplexity_ratio"]), "by the reference; 1 is unchanged")
        )
    return items


def panels(run: Run) -> list[Chart]:
    """Levels before and after with intervals, and the rewards over the KL to the start."""
    card, items = run.summary, []
    dots = []
    for name, label in REWARDS:
        if card.get(f"{name}_difference_ci"):
            low, high = card[f"{name}_ci_before"]
            dots.append(charts.Dot(f"{label} before", card[f"{name}_mean_before"], low, high, strong=False))
            dots.append(charts.Dot("after", card[f"{name}_mean"], *card[f"{name}_ci"]))
    if dots:
        svg = Markup(charts.intervals("Before and after", dots))
        caption = (
            "Means over held-out prompts, 95 % intervals. The change is taken prompt by prompt, so its interval is "
            "usually narrower than these."
        )
        items.append(Chart("Before and after, with intervals", svg, caption=caption, wide=True))
    points = [point for point in card.get("curve", []) if point.get("kl") is not None and "reward" in point]
    if len(points) > 2:
        gold = all("gold" in point for point in points)
        legend = (("accent", "gold reward"), ("second", "reward")) if gold else (("second", "reward"),)
        fits = _fits(run)
        caption = "Each point is an evaluation. Where the gold reward turns down, training has gone too far."
        caption += "".join(f" By the fit of Gao et al. (the lines) {one.words}." for one in fits)
        curves = {one.judge: _drawn(one, points[0][one.judge]) for one in fits if one.judge in points[0]}
        svg = Markup(charts.frontier("Reward over KL", points, curves))
        items.append(Chart("Reward over distance", svg, caption=caption, legend=legend, wide=True))
    return items


def _fits(run: Run) -> list[Fit]:
    """The curves of Gao et al. through the points, with the peak that they predict; none with too few points."""
    try:
        return frontier(run.path)
    except DataError:
        return []


def _drawn(one: Fit, start: float) -> charts.Curve:
    """A fit as it is drawn: as far as the points go, or to its peak."""
    far = max(max(d for d, _ in one.points), one.peak or 0.0)
    x = np.linspace(0.0, far, 60)
    return charts.Curve(x.tolist(), (start + one.at(x)).tolist(), one.peak)


def brief(run: Run) -> str:
    """From what to what the reward went in training."""
    return f"reward {signed(run.first('reward/mean'))} → {signed(run.last('reward/mean'))}"


POLICY = Kind(
    name="policy",
    title="Reinforcement learning",
    card=card,
    verdict=verdict,
    figures=figures,
    brief=brief,
    warnings=warnings,
    unchecked=unchecked,
    panels=panels,
    tables=tables,
    training=training,
    rows=EVALUATION,
    computed="evaluated_step",
    curves=(
        "reward/mean",
        "objective/kl",
        "policy/entropy",
        "response/length_mean",
        "response/eos_rate",
        "policy/clip_fraction",
        "critic/explained_variance",
        "objective/kl_coef_in_force",
        "reward/std",
    ),
    headline=("reward_difference", "gold_difference", "gold_difference_ci", "win_rate", "win_rate_ci", "kl"),
    unit="iteration",
)
