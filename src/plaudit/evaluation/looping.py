"""The page of a loop: its rounds side by side, from ``loop.json`` alone, with links to the page of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from plaudit.evaluation import charts
from plaudit.evaluation.choice import ENOUGH
from plaudit.evaluation.page import INTERVAL, Chart, Tone, Verdict, environment
from plaudit.evaluation.words import number, percent, signed, span
from plaudit.runs.files import HELDOUT, LOOP, Row, read_json, read_lines, write_text
from plaudit.statistics.clustered import outcomes, share

HEAD = ("Round", "Asked", "Learned from", "Reward model: accuracy on held-out comparisons", "{judge}",
        "Wins against the SFT model", "KL to the SFT model", "Policy")  # fmt: skip
ENDED = {"limit": "ended by a limit", "alarm": "ended by an alarm"}


class Cell(NamedTuple):
    """A figure, with what belongs to it in small print."""

    value: str
    note: str = ""
    links: tuple[tuple[str, str], ...] = ()
    """(address, words)."""


def accuracy_by_round(run: Path) -> dict[int, Row]:
    """How a reward model ranks the held-out comparisons of each round, and of all (0), each with its interval.

    The round stands at the start of a row's id, as ``r2-``. Intervals are Wilson's, over prompts.
    """
    rows = [row for row in read_lines(run / HELDOUT) if "chosen_score" in row]
    named: dict[int, list[Row]] = {0: rows}
    for row in rows:
        first = str(row["id"]).partition("-")[0]
        if first[:1] == "r" and first[1:].isdigit():
            named.setdefault(int(first[1:]), []).append(row)
    figures = {}
    for one, own in sorted(named.items()):
        if own:
            right = outcomes([row["chosen_score"] - row["rejected_score"] for row in own])
            found = share(right, [row["prompt_id"] for row in own])
            figures[one] = {"accuracy": found.value, "accuracy_ci": list(found.interval), "rows": len(own)}
    return figures


def write_loop_page(out: Path) -> Path:
    """Write report.html of the loop in a directory; returns its path.

    Raises:
        DataError: its loop.json is broken.
    """
    known = read_json(out / LOOP)
    rounds = [_whole(one) for one in known.get("rounds", [])]
    judge = "gold" if any("gold_mean" in one["evaluate"] for one in rounds) else "reward"
    settings = known.get("settings", {})
    done = sum(bool(one["evaluate"]) for one in rounds)
    named = "Gold reward" if judge == "gold" else "Reward"
    page = {
        "name": out.resolve().name,
        "facts": [f"{done} of {settings.get('rounds', len(rounds))} rounds", *_facts(settings)],
        "verdict": _verdict([one["evaluate"] for one in rounds if one["evaluate"]], judge),
        "waits": "" if known.get("finished") else known.get("waits", ""),
        "head": [text.format(judge=named) for text in HEAD],
        "rounds": [_cells(number, one, judge) for number, one in enumerate(rounds, 1)],
        "drawings": _drawings(rounds, judge),
        "notes": [*_notes(rounds), *known.get("changed", [])],
    }
    path = out / "report.html"
    write_text(path, environment().get_template("looping.html.j2").render(page))
    return path


def _whole(steps: Mapping[str, Row]) -> dict[str, Row]:
    """The figures of a round, empty for steps that are not done."""
    names = ("sample", "choose", "ask", "mix", "reward", "policy", "evaluate")
    return {name: dict(steps.get(name, {})) for name in names}


def _facts(settings: Row) -> list[str]:
    kind = str(settings.get("annotators.kind", ""))
    who = {"simulated": "simulated annotators", "app": "people", "judge": "a judge model"}.get(kind, "")
    return [who, f"choice: {settings['choose']}"] if who and "choose" in settings else []


def _verdict(evaluated: Sequence[Row], judge: str) -> Verdict:
    """What the last round reached against the SFT model, by the paired interval."""
    if not evaluated:
        return Verdict("flat", "No round is finished yet.", "The page is written anew after each round.")
    last = evaluated[-1]
    change, ends = last.get(f"{judge}_difference"), last.get(f"{judge}_difference_ci")
    rounds = f"{len(evaluated)} round{'' if len(evaluated) == 1 else 's'}"
    name = "gold reward, on which it was never trained," if judge == "gold" else "reward"
    text = (
        f"On {last.get('prompts')} held-out prompts that took no part in choosing weights, the {name} of the last "
        f"policy is {number(last.get(f'{judge}_mean'))}, and that of the SFT model "
        f"{number(last.get(f'{judge}_mean_before'))}: {signed(change)}, {INTERVAL} {span(ends, 'signed')}, at a KL of "
        f"{number(_kl(last)[0], 1)} nats per response to the SFT model."
    )
    if judge == "reward":
        text += " It is the reward that the policy was trained on: it does not show that the responses are better."
    tone: Tone = "flat"
    headline = f"No clear change after {rounds}."
    if not ends or last.get("prompts", 0) < ENOUGH:
        headline = "Too few prompts to say."
    elif ends[0] > 0:
        tone, headline = "good", f"It got better in {rounds}." if judge == "gold" else f"The reward rose in {rounds}."
    elif ends[1] < 0:
        tone, headline = "bad", f"It got worse in {rounds}." if judge == "gold" else f"The reward fell in {rounds}."
    return Verdict(tone, headline, text)


def _cells(place: int, one: Mapping[str, Row], judge: str) -> list[Cell]:
    """One line of the table of rounds."""
    folder, asked, mix, last = f"round-{place}", one["choose"], one["mix"], one["evaluate"]
    answered = one["ask"].get("answers")
    people = len(one["ask"].get("annotators", {}))
    by = f"{asked.get('by', '')}; {asked.get('heldout', 0)} held out" if asked.get("asked") else ""
    if answered:
        by += f"; {answered} answers of {people} annotator{'' if people == 1 else 's'}"
    if one["ask"].get("implicit") is not None:
        by += f"; and {one['ask']['implicit']} preferences from feedback"
    accuracy = one["reward"].get("accuracy", {})
    each = [
        f"round {name}: {percent(a['accuracy'])} ({span(a['accuracy_ci'], 'percent')}, {a['rows']} rows)"
        for name, a in accuracy.items() if name != "0"
    ]  # fmt: skip
    whole = accuracy.get("0")
    run = ((f"{folder}/reward/report.html", "its page"),) if one["reward"] else ()
    command = str(one["policy"].get("command", ""))
    ended = ENDED.get(str(one["policy"].get("ended")), "")
    page = ((f"{folder}/{command}/report.html", "its page"),) if command else ()
    kl, kl_ends = _kl(last)
    return [
        Cell(str(place)),
        Cell(str(asked.get("asked", "–")), by.strip("; ")),
        Cell(f"{mix['new']} new, {mix['old']} old" if mix else "–", f"{mix['heldout']} held out" if mix else ""),
        Cell(percent(whole["accuracy"]) if whole else "–", "; ".join(each), run),
        Cell(number(last.get(f"{judge}_mean")), _moved(last, judge)),
        Cell(percent(last.get("win_rate")), span(last.get("win_rate_ci"), "percent")),
        Cell(number(kl, 1), span(kl_ends, digits=1)),
        Cell(command.upper() or "–", ended, page),
    ]


def _moved(last: Row, judge: str) -> str:
    ends = span(last.get(f"{judge}_difference_ci"), "signed")
    return f"{signed(last.get(f'{judge}_difference'))} ({ends}) against the SFT model" if ends else ""


def _drawings(rounds: Sequence[Mapping[str, Row]], judge: str) -> list[Chart]:
    """The judge, the accuracy of reward models, and the KL, round by round."""
    drawn: list[Chart] = []
    done = [(place, one["evaluate"]) for place, one in enumerate(rounds, 1) if one["evaluate"]]
    name = "Gold reward" if judge == "gold" else "Reward"
    dots = [
        _dot(f"round {place}", last[f"{judge}_mean"], last[f"{judge}_ci"])
        for place, last in done if last.get(f"{judge}_ci")
    ]  # fmt: skip
    if dots and done[0][1].get(f"{judge}_ci_before"):
        first = done[0][1]
        dots.insert(0, _dot("SFT model", first[f"{judge}_mean_before"], first[f"{judge}_ci_before"], False))
    if dots:
        caption = "Means over the same held-out prompts, 95 % intervals."
        if judge == "reward":
            caption += " Each round is scored by its own reward model, so the rounds are not in one unit."
        svg = Markup(charts.intervals(name, dots))
        drawn.append(Chart(f"{name} after each round", svg, caption=caption, wide=True))
    shown = [
        _dot(f"model of {place}, rows of {of}", one["accuracy"], one["accuracy_ci"], int(of) == place)
        for place, each in enumerate(rounds, 1)
        for of, one in each["reward"].get("accuracy", {}).items() if of != "0"
    ]  # fmt: skip
    if shown:
        svg = Markup(charts.intervals("Accuracy of reward models", shown, share=True, reference=0.5))
        caption = "Each round's reward model on the held-out comparisons of each round so far, 95 % intervals."
        drawn.append(Chart("Reward models on held-out comparisons", svg, caption=caption, wide=True))
    known = [(place, *_kl(last)) for place, last in done]
    kl = [_dot(f"round {place}", value, ends) for place, value, ends in known if value is not None and ends]
    if kl:
        svg = Markup(charts.intervals("KL to the SFT model", kl))
        caption = "Nats per response to the model that the whole loop started from."
        drawn.append(Chart("KL to the SFT model", svg, caption=caption, wide=True))
    return drawn


def _kl(last: Row) -> tuple[float | None, Sequence[float] | None]:
    """The KL to the SFT model with its interval: summed over the vocabulary at each token, where it is known."""
    name = "kl_exact" if last.get("kl_exact") is not None else "kl"
    return last.get(name), last.get(f"{name}_ci")


def _dot(label: str, mean: float, ends: Sequence[float], strong: bool = True) -> charts.Dot:
    low, high = ends
    return charts.Dot(label, mean, low, high, strong)


def _notes(rounds: Sequence[Mapping[str, Row]]) -> list[str]:
    """What came up on the way."""
    notes = []
    for place, one in enumerate(rounds, 1):
        if one["sample"].get("same"):
            notes.append(f"Round {place}: to {one['sample']['same']} prompts the policy gave the same response twice.")
        undecided = one["choose"].get("asked", 0) - one["ask"].get("decided", one["choose"].get("asked", 0))
        if undecided > 0:
            notes.append(f"Round {place}: {undecided} comparisons have no majority, or no answer, and are left out.")
        notes += [f"Round {place}: {count} {what} say nothing." for what, count in one["ask"].get("unused", {}).items()]
        if one["policy"].get("ended") in ENDED:
            how = ENDED[one["policy"]["ended"]]
            notes.append(f"Round {place}: the policy's run was {how}; its best weights go on.")
    return notes

