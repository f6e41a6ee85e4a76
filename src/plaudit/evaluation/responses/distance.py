"""How far a policy is from its start: KL by samples and exactly, and how each of the two reads what the other writes.

Log-probs are sums over a response, in nats, at the sampling temperature. ``logprob`` is by whoever wrote the
response, ``ref_logprob`` by the start, ``trained_logprob`` by the trained policy; ``full_kl`` is the sum over the
positions of the response of the KL between the two next-token distributions there.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

from plaudit.evaluation.responses.compared import entry, known
from plaudit.runs.files import Row
from plaudit.statistics.clustered import mean_over, ratio_over
from plaudit.statistics.intervals import Estimate

LARGEST = 700.0
"""Nats. The exponential of more overflows."""


def distance(before: Sequence[Row], after: Sequence[Row]) -> Row:
    """What the rows can give of these; each ratio has 1 where nothing changed.

    - ``kl_exact``: mean over the responses of the trained policy of the sum of ``full_kl``: it has the expectation of
      the sampled estimate ``kl`` and a smaller variance, and it is never negative.
    - ``surprise_of_start``: perplexity of the start over that of the trained policy on what the trained policy writes,
      ``exp(sum(logprob - ref_logprob) / tokens)``: how strange its responses are to the start.
    - ``surprise_of_policy``: the reverse, on what the start writes: how strange that has become to the trained policy.
    - ``perplexities``: of each by each, ``{"start by start": ..., "policy by start": ...}``, the writer first.
    """
    values: Row = {}
    exact = [row for row in after if row.get("full_kl") is not None]
    if exact:
        values |= entry("kl_exact", mean_over([row["full_kl"] for row in exact], _prompts(exact)))
    values |= _surprise("surprise_of_start", after, "logprob", "ref_logprob")
    values |= _surprise("surprise_of_policy", before, "logprob", "trained_logprob")
    readers = {
        "start by start": (before, "logprob"), "start by policy": (before, "trained_logprob"),
        "policy by start": (after, "ref_logprob"), "policy by policy": (after, "logprob"),
    }  # fmt: skip
    table = {name: known(perplexity(rows, field)) for name, (rows, field) in readers.items()}
    return values | ({"perplexities": table} if all(value is not None for value in table.values()) else {})


def perplexity(rows: Sequence[Row], field: str) -> float:
    """``exp(-sum(log-probs) / tokens)`` over the responses; NaN where the rows do not have what it takes."""
    measured = [row for row in rows if row.get(field) is not None and row.get("length")]
    tokens = sum(row["length"] for row in measured)
    if not tokens:
        return math.nan
    # The bound keeps exp from overflowing where a reader gives a response practically no probability.
    return math.exp(min(-sum(row[field] for row in measured) / tokens, LARGEST))


def _surprise(name: str, rows: Sequence[Row], writer: str, reader: str) -> Row:
    """The perplexity of a reader over that of the writer, of the writer's own responses; its interval is that of the
    mean difference of the log-probs of a token, through exp."""
    measured = [
        row for row in rows if row.get(writer) is not None and row.get(reader) is not None and row.get("length")
    ]
    if not measured:
        return {}
    gaps = [row[writer] - row[reader] for row in measured]
    log = ratio_over(gaps, [float(row["length"]) for row in measured], _prompts(measured))
    low, value, high = (math.exp(min(x, LARGEST)) for x in (log.low, log.value, log.high))
    return entry(name, Estimate(value, low, high, log.n, log.rows))


def _prompts(rows: Sequence[Row]) -> list[Hashable]:
    return [str(row.get("prompt_id")) for row in rows]
