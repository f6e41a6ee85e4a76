"""Judgements without a majority as comparisons whose target is the share of votes: a half, for a tie."""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.data.transcripts import prompt_key
from plaudit.records import Content, Judgement, Preference


def undecided(judgements: Sequence[Judgement]) -> list[Preference]:
    """The pairs that a conversion to preferences leaves out, because neither response has most votes.

    ``agreement`` is the share of votes for ``chosen``, a tie counting half for each: at least 1/2.
    """
    groups: dict[tuple[str, frozenset[Content]], list[Judgement]] = {}
    for judgement in judgements:
        both = frozenset((judgement.response_a, judgement.response_b))
        groups.setdefault((prompt_key(judgement.prompt), both), []).append(judgement)
    pairs = [_undecided(group) for group in groups.values()]
    return [pair for pair in pairs if pair is not None]


def _undecided(group: Sequence[Judgement]) -> Preference | None:
    first = group[0]
    strengths = [j.strength if j.response_a == first.response_a else -j.strength for j in group]
    for_a, for_b, ties = sum(s < 0 for s in strengths), sum(s > 0 for s in strengths), strengths.count(0)
    if max(for_a, for_b) > max(min(for_a, for_b), ties) or first.response_a == first.response_b:
        return None
    share = (max(for_a, for_b) + ties / 2) / len(group)
    chosen, rejected = first.response_a, first.response_b
    if for_b > for_a:
        chosen, rejected = rejected, chosen
    return Preference(f"{first.id}/tie", first.prompt, chosen, rejected, 0.0, share)
