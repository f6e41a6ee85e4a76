"""What a policy has forgotten: how well it predicts held-out texts that no reward was about, before and after.

A policy that is trained on a reward may lose what it learned before it, and no reward shows that. The figure is the
negative log-likelihood per token of held-out demonstrations, or of any text that the user gives.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from plaudit.evaluation.responses.compared import entry
from plaudit.runs.files import Row
from plaudit.statistics.clustered import ratio_over
from plaudit.statistics.intervals import Estimate

PERPLEXITY_RISE = 0.05
"""From so much higher a perplexity on it is worth a warning."""


def forgetting(rows: Sequence[Row]) -> Row:
    """Figures of forgetting.jsonl; empty without rows.

    Args:
        rows: one a text: ``prompt_id``, ``tokens`` that are predicted, and ``start`` and ``trained``, the sum of their
            negative log-probs in nats at temperature 1.

    Returns:
        ``heldout_nll_before``, ``heldout_nll`` and ``heldout_nll_difference`` in nats per token with their intervals,
        ``heldout_perplexity_ratio`` (after over before) with its interval, and ``heldout_texts``, ``heldout_tokens``.
    """
    measured = [row for row in rows if row.get("tokens")]
    if not measured:
        return {}
    tokens = [float(row["tokens"]) for row in measured]
    prompts: list[Hashable] = [str(row.get("prompt_id")) for row in measured]
    before, after = ([float(row[side]) for row in measured] for side in ("start", "trained"))
    # Token by token of the same texts: what makes a text hard is in both, and cancels out of the difference.
    change = ratio_over([b - a for a, b in zip(before, after, strict=True)], tokens, prompts)
    ratio = Estimate(math.exp(change.value), math.exp(change.low), math.exp(change.high), change.n, change.rows)
    return {
        **entry("heldout_nll_before", ratio_over(before, tokens, prompts)),
        **entry("heldout_nll", ratio_over(after, tokens, prompts)),
        **entry("heldout_nll_difference", change),
        **entry("heldout_perplexity_ratio", ratio),
        "heldout_texts": len(measured),
        "heldout_tokens": int(sum(tokens)),
    }
