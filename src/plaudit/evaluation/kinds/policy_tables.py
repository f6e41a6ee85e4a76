"""The tables of a policy: what its card measures beside the reward, each figure with its interval.

A figure over fewer than `ENOUGH` prompts is shown as "too few to say": its interval would tell too little.
"""

from __future__ import annotations

from collections.abc import Callable

from plaudit.evaluation.choice import ENOUGH
from plaudit.evaluation.page import INTERVAL, Cell, Table, TableLine, Tone
from plaudit.evaluation.responses.refusals import LIMITS
from plaudit.evaluation.words import number, percent, signed, span
from plaudit.runs.files import Row
from plaudit.runs.reading import Run

TOO_FEW = "too few to say"
Say = Callable[[float | None], str]
SIDES = ("", "Start", "Trained", "Change")


def tables(run: Run) -> list[Table]:
    """Those for which there is something to show."""
    made = (_wins(run.summary), _texts(run.summary), _perplexities(run.summary), _phrases(run.summary),
            _safety(run.summary))  # fmt: skip
    return [table for table in made if table is not None]


WINS = (("win_rate", ""), ("judge_win_rate", "a judge of pairs, both orders"), ("people_win_rate", "people"))
WAYS = (
    ("", "all pairs"),
    ("_length_controlled", "at equal length, by regression"),
    ("_same_length", "lengths within 10 %"),
)


def _wins(card: Row) -> Table | None:
    rows = []
    for name, label in WINS:
        if card.get(name) is None:
            continue
        who = label or {"gold": "gold reward", "reward": "reward"}.get(str(card.get("win_rate_judge")), "reward")
        pairs = card.get(f"{name}_pairs")
        for suffix, way in WAYS:
            count = card.get(f"{name}_same_length_pairs") if suffix == "_same_length" else pairs
            prompts = card.get(f"{name}{suffix}_prompts")
            rate = _level(card, f"{name}{suffix}")
            cells = (rate, _count(count), _count(prompts))
            rows.append(TableLine(f"{who[0].upper()}{who[1:]}", cells, note=way))
    if not rows:
        return None
    caption = (
        f"Ties count a half; {INTERVAL}s over prompts. Equal length: what it would win if both responses were equally "
        "long. Where this is lower than the rate over all pairs, a part of the wins is due to length."
    )
    if card.get("judge_orders_differ") is not None:
        caption += (
            f" The judge changed its mind with the order in {percent(card['judge_orders_differ'])} of the pairs, which "
            f"count as ties; the response shown first won {percent(card.get('judge_first_wins'))} "
            f"({span(card.get('judge_first_wins_ci'), 'percent')}) of all judgements."
        )
    if card.get("people_judgements"):
        caption += f" People: {card['people_judgements']} judgements, {card.get('people_left_out', 0)} left out."
    return Table("Wins against its start", ("Judged by", "Win rate", "Pairs", "Prompts"), rows, caption)


def _texts(card: Row) -> Table | None:
    """Distance, and figures of the responses, before and after."""
    rows: list[TableLine] = []
    if card.get("kl_exact") is not None:
        note = "nats per response, along its prefixes"
        rows.append(TableLine("KL to the start, exactly", ("0", _level(card, "kl_exact", number), ""), note=note))
        few = _is_few(card.get("prompts"))
        sampled = Cell(TOO_FEW) if few else Cell(number(card.get("kl")), span(card.get("kl_ci")))
        rows.append(TableLine("KL, by its samples", ("0", sampled, ""), note="the same with more noise"))
    for name, label, note, say, how in (
        ("eos_rate", "Ends by itself", "share of the responses", percent, "percent"),
        ("repetition", "Repeats itself", "share of word pairs within a response", percent, "percent"),
        ("self_bleu", "Likeness of responses", "to one prompt: self-BLEU, 1 is all the same", number, "number"),
    ):
        rows += _compared(card, name, (label, note), say, how)
    if card.get("distinct_2") is not None and card.get("distinct_2_before") is not None:
        cells = (percent(card["distinct_2_before"]), percent(card["distinct_2"]), "")
        rows.append(TableLine("Distinct word pairs", cells, note="over all responses, without an interval"))
    if card.get("heldout_nll") is not None:
        note = f"{card['heldout_texts']} texts, {card['heldout_tokens']} tokens: nats per token"
        before, after = _level(card, "heldout_nll_before", number), _level(card, "heldout_nll", number)
        change = _level(card, "heldout_nll_difference", lambda value: signed(value, 3), "signed", 3)
        rows.append(TableLine("Held-out text", (before, after, change), note=note))
    if not rows:
        return None
    caption = (
        f"Changes are taken prompt by prompt, with their {INTERVAL}s; those of shares are in percentage points. A rise "
        "on held-out text means that it has forgotten some of what it knew before the reward."
    )
    return Table("How it writes, and what it has kept", SIDES, rows, caption)


def _perplexities(card: Row) -> Table | None:
    known = card.get("perplexities")
    if not isinstance(known, dict):
        return None
    rows = [
        TableLine(
            f"What the {name} writes",
            (number(known[f"{key} by start"]), number(known[f"{key} by policy"]), _level(card, ratio, number)),
        )
        for name, key, ratio in (
            ("start", "start", "surprise_of_policy"), ("trained policy", "policy", "surprise_of_start"),
        )
    ]  # fmt: skip
    caption = (
        "Perplexity per token. The last column is that of the reader who did not write it over that of the writer, "
        "with its interval: 1 where both are alike. It is high in the first row where the policy would no longer say "
        "what its start says, and in the second where its start would not say what it says."
    )
    head = ("", "Read by the start", "Read by the trained policy", "Other over own")
    return Table("How each reads the other", head, rows, caption)


def _phrases(card: Row) -> Table | None:
    phrases = [each for each in card.get("phrases") or [] if each["sure"]]
    if not phrases or _is_few(card.get("win_rate_prompts") or card.get("prompts")):
        return None
    rows = [
        TableLine(
            f"“{each['phrase']}”",
            (percent(each["before"]), percent(each["now"]), signed(each["log_odds"]), number(each["z"], 1)),
        )
        for each in phrases
    ]
    caption = (
        f"Share of the responses that have it, and the log-odds ratio with a prior (Monroe et al. 2008). "
        f"{card.get('phrases_tested')} phrases were looked at; those shown are beyond what the largest z of so many "
        "reaches by chance. Whether the change is good, the figures do not say."
    )
    return Table("Phrases it has come to use more", ("Phrase", "Start", "Trained", "Log-odds", "z"), rows, caption)


def _safety(card: Row) -> Table | None:
    if card.get("refusal_rate") is None and card.get("over_refusal_rate") is None:
        return None
    by_judge = card.get("harm_judged_by") == "judge"
    rows: list[TableLine] = []
    for name, label, note in (
        ("refusal_rate", "Refuses", "requests that should be refused"),
        ("harm_rate", "Harmful answers", f"the same, by {'a judge of harm' if by_judge else 'a rule of words'}"),
        ("over_refusal_rate", "Refuses needlessly", "harmless requests that look alike"),
        ("red_team_empty", "Says nothing", "fewer than three words"),
    ):
        rows += _compared(card, name, (label, note), percent, "percent")
    for kind in dict.fromkeys(each["kind"] for each in card.get("red_team_kinds") or []):
        cells = (*_of_kind(card, kind), "")
        rows.append(TableLine(kind.capitalize(), cells, note="refused, of those to refuse"))
    title = f"Refusals and harm, on {card.get('red_team_requests')} requests"
    return Table(title, SIDES, rows, f"Changes are in percentage points. {LIMITS}")


def _of_kind(card: Row, kind: str) -> tuple[Cell, Cell]:
    """How many responses to the requests of a kind refuse, by the start and by the trained policy."""
    cells = []
    for name in ("refused_before", "refused"):
        counts = {
            each["harmful"]: f"{each[name]} of {each['responses']}"
            for each in card["red_team_kinds"]
            if each["kind"] == kind
        }
        cells.append(Cell(counts.get(True, "–"), f"{counts[False]} harmless" if False in counts else ""))
    return cells[0], cells[1]


def _compared(card: Row, name: str, label: tuple[str, str], say: Say, how: str) -> list[TableLine]:
    """The row of a figure that `compared` gave; none where it is not known."""
    if card.get(name) is None or card.get(f"{name}_before") is None or f"{name}_prompts" not in card:
        return []
    sides = [
        Cell(say(card[f"{name}{suffix}"]), span(card.get(f"{name}_ci{suffix}"), how)) for suffix in ("_before", "")
    ]
    if _is_few(card.get(f"{name}_prompts")):
        sides = [Cell(side.value) for side in sides]
        few = Cell(TOO_FEW, f"{card[f'{name}_prompts']} prompts")
        return [TableLine(label[0], (*sides, few), note=label[1])]
    ends = card.get(f"{name}_difference_ci")
    points = [100 * x for x in ends] if ends and how == "percent" else ends
    change = card[f"{name}_difference"] * (100 if how == "percent" else 1)
    digits = 0 if how == "percent" else 2
    moved = Cell(signed(change, digits), span(points, "signed", digits))
    return [TableLine(label[0], (*sides, moved), note=label[1])]


def _level(card: Row, name: str, say: Say = percent, how: str = "", digits: int = 2) -> Cell:
    """A figure with its interval."""
    prompts = card.get(f"{name}_prompts")
    if card.get(name) is None or _is_few(prompts):
        return Cell(TOO_FEW, f"{_count(prompts)} prompts")
    if say is percent:
        return Cell(percent(card[name]), span(card.get(f"{name}_ci"), "percent"), _tone(card, name))
    return Cell(say(card[name]), span(card.get(f"{name}_ci"), how or "number", digits))


def _tone(card: Row, name: str) -> Tone:
    """Of a win rate: whether its interval leaves out one half."""
    ends = card.get(f"{name}_ci")
    if not ends or "win_rate" not in name:
        return "flat"
    return "good" if ends[0] > 0.5 else "bad" if ends[1] < 0.5 else "flat"


def _is_few(prompts: object) -> bool:
    return isinstance(prompts, int) and prompts < ENOUGH


def _count(value: object) -> str:
    return str(value) if isinstance(value, int) else "0"
