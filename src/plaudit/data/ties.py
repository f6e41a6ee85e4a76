"""Judgements without a majority as comparisons whose target is the share of votes: a half, for a tie."""

from __future__ import annotations

from collections.abc import Sequence

from plaudit.data.judgements import judged_pairs
from plaudit.records import Judgement, Preference


def undecided(judgements: Sequence[Judgement]) -> list[Preference]:
    """The pairs that a conversion to preferences leaves out, because neither response has most votes.

    ``agreement`` is the share of votes for ``chosen``, a tie counting half for each: at least 1/2.
    """
    return [
        Preference(f"{pair.first.id}/tie", pair.first.prompt, *pair.ordered, 0.0, pair.agreement)
        for pair in judged_pairs(judgements)
        if not pair.winner and not pair.is_one_text
    ]
