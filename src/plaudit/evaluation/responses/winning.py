"""Does the trained policy win against its start? By a reward, in both orders of a judge of pairs, and by people.

Each has the plain win rate (ties count a half), the one at equal length by regression, and the one over the pairs whose
lengths are about the same: judges of all kinds prefer longer responses, and a policy can win by length alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from plaudit.data.judgements import judged_pairs
from plaudit.data.reading.transcripts import plain_text, prompt_key
from plaudit.errors import DataError
from plaudit.evaluation.responses.compared import entry
from plaudit.records import Judgement
from plaudit.runs.files import Row
from plaudit.statistics.clustered import Floats, outcomes, share
from plaudit.statistics.wins import both_orders, length_controlled, same_length

START, TRAINED = "start", "trained"
"""What the two policies are called in the pairs that people judge."""


def _rates(name: str, won: Floats, lengths: Sequence[tuple[float, float]], prompts: Sequence[Hashable]) -> Row:
    """The three win rates: ``name``, ``name_length_controlled``, ``name_same_length``, each with what `entry` gives."""
    new, old = [pair[0] for pair in lengths], [pair[1] for pair in lengths]
    gaps = [one - other for one, other in lengths]
    level = same_length(won, new, old, prompts)
    return {
        **entry(name, share(won, prompts)),
        f"{name}_pairs": len(prompts),
        **entry(f"{name}_length_controlled", length_controlled(won, gaps, prompts)),
        **entry(f"{name}_same_length", level),
        f"{name}_same_length_pairs": level.rows,
    }


def by_reward(before: Sequence[Row], after: Sequence[Row], field: str) -> Row:
    """``win_rate``: of all pairs of an earlier and a later response to a prompt, by a column of evaluation.jsonl.

    Args:
        before, after: rows of responses, with ``length`` in tokens.
        field: "gold" or "reward"; rows without a value are left out.
    """
    old: dict[str, list[Row]] = {}
    for row in before:
        if row.get(field) is not None:
            old.setdefault(str(row.get("prompt_id")), []).append(row)
    gaps: list[float] = []
    lengths: list[tuple[float, float]] = []
    prompts: list[Hashable] = []
    for row in after:
        for was in old.get(str(row.get("prompt_id")), ()) if row.get(field) is not None else ():
            gaps.append(row[field] - was[field])
            lengths.append((float(row.get("length") or 0), float(was.get("length") or 0)))
            prompts.append(str(row.get("prompt_id")))
    return _rates("win_rate", outcomes(gaps), lengths, prompts)


def by_judge(rows: Sequence[Row]) -> Row:
    """``judge_win_rate``: by a judge that compares, asked in both orders; where the orders disagree it is a tie.

    Args:
        rows: one a pair: ``prompt_id``; ``first`` and ``second``, the outcome for the trained policy where its response
            was shown first and second (1, 0, or 1/2; None: the judge failed); ``length`` and ``start_length``.

    Returns:
        The win rates; ``judge_orders_differ``: share of the pairs whose outcome depends on the order;
        ``judge_first_wins``: share of the judgements that the response shown first wins, a tie a half;
        ``judge_failed``: pairs left out.
    """
    judged = [row for row in rows if row.get("first") is not None and row.get("second") is not None]
    prompts: list[Hashable] = [str(row.get("prompt_id")) for row in judged]
    first, second = ([row[side] for row in judged] for side in ("first", "second"))
    lengths = [(float(row["length"]), float(row["start_length"])) for row in judged]
    place = [(one + 1 - other) / 2 for one, other in zip(first, second, strict=True)]
    return {
        **_rates("judge_win_rate", both_orders(first, second), lengths, prompts),
        **entry(
            "judge_orders_differ", share([float(a != b) for a, b in zip(first, second, strict=True)], prompts)
        ),
        **entry("judge_first_wins", share(place, prompts)),
        "judge_failed": len(rows) - len(judged),
    }


def by_people(judgements: Iterable[Judgement], where: str = "") -> Row:
    """``people_win_rate``: from judgements of the pairs that an evaluation wrote, as the annotation app exports them.

    All judgements of one pair, in whichever order it was shown, are one outcome by majority; without a majority it is
    a tie. Lengths are in words.

    Args:
        judgements: those whose two models are "start" and "trained" count, the others are left out and counted.
        where: their file, for errors.

    Raises:
        DataError: none is about the two.
    """
    every = list(judgements)
    usable = [each for each in every if {each.model_a, each.model_b} == {START, TRAINED}]
    if not usable:
        raise DataError(
            f'none of the {len(every)} judgements compares "{START}" with "{TRAINED}"',
            where=where,
            cure="let people judge the pairs.jsonl of an evaluation: plaudit annotate serve pairs.jsonl, then plaudit "
            "annotate export with --what judgements",
        )
    won: list[float] = []
    lengths: list[tuple[float, float]] = []
    prompts: list[Hashable] = []
    pairs = judged_pairs(usable)
    # Of two responses that are the same neither is better, whatever was clicked.
    different = [pair for pair in pairs if not pair.is_one_text]
    for pair in different:
        a_won = {-1: 1.0, 0: 0.5, 1: 0.0}[pair.winner]
        words = [float(len(plain_text(x).split())) for x in (pair.first.response_a, pair.first.response_b)]
        if pair.first.model_a == TRAINED:
            won.append(a_won)
            lengths.append((words[0], words[1]))
        else:
            won.append(1 - a_won)
            lengths.append((words[1], words[0]))
        prompts.append(prompt_key(pair.first.prompt))
    return {
        **_rates("people_win_rate", won, lengths, prompts),
        "people_judgements": len(usable),
        "people_annotators": len({each.annotator for each in usable if each.annotator}),
        "people_left_out": len(every) - len(usable),
        "people_same_text": len(pairs) - len(different),
    }

