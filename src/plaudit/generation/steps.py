"""One token more of each row of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from plaudit.errors import ModelError
from plaudit.generation.batches import Batch, Response
from plaudit.generation.sampling import draw, uniform


def draw_one(batch: Batch) -> None:
    """Draw a token of each row, let finished rows leave, and read the tokens of the others.

    A row whose log-prob is not finite is aborted, with ``error``.
    """
    # Draw, then let finished rows leave, then one forward pass: a finished row is never computed again, and the first
    # tokens need no pass of their own, because the prefill has given the states they are drawn from.
    rows = list(batch.rows)
    logits = batch.logits()
    seeds = np.array([r.seed for r in rows], dtype=np.uint64)
    counts = np.array([len(r.ids) for r in rows], dtype=np.uint64)
    u = torch.from_numpy(uniform(seeds, counts))
    tokens, logprobs = _drawn(rows, logits, u, _banned(rows, logits))
    # On a GPU each transfer waits for everything queued before it, so both go in one: the bits of an fp32 log-prob
    # as a whole number beside the id.
    ids, bits = torch.stack([tokens, logprobs.view(torch.int32).long()]).cpu()
    values = bits.int().view(torch.float32)
    _note_alternatives(rows, logits)
    for row, token, logprob in zip(rows, ids.tolist(), values.tolist(), strict=True):
        _append(row, token, logprob)
    order = batch.leave()
    if len(order) < len(rows):
        tokens = tokens[torch.tensor(order, dtype=torch.int64, device=tokens.device)]
    batch.forward(tokens)


def _drawn(
    rows: Sequence[Response], logits: Tensor, u: Tensor, banned: Tensor | None
) -> tuple[Tensor, Tensor]:
    """See `draw`: rows that are drawn by the same distribution together."""
    shapes = list(dict.fromkeys(r.rules.shape for r in rows))
    if len(shapes) == 1:
        return draw(logits, u, shapes[0], banned)
    tokens = torch.empty(len(rows), dtype=torch.int64, device=logits.device)
    logprobs = torch.empty(len(rows), dtype=torch.float32, device=logits.device)
    for shape in shapes:
        at = torch.tensor([i for i, r in enumerate(rows) if r.rules.shape == shape])
        there = at.to(logits.device)
        tokens[there], logprobs[there] = draw(
            logits[there], u[at], shape, None if banned is None else banned[there]
        )
    return tokens, logprobs


def _note_alternatives(rows: Sequence[Response], logits: Tensor) -> None:
    """The likeliest tokens of the rows that want them, by the log-probs that are recorded of drawn tokens."""
    for i, row in enumerate(rows):
        if row.rules.alternatives:
            best = (logits[i] / row.rules.shape.temperature).log_softmax(-1).topk(row.rules.alternatives)
            row.alternatives.append(tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)))


def _append(row: Response, token: int, logprob: float) -> None:
    # Checked here, where the prompt is still known: in training it would be a loss of NaN without a cause.
    if not math.isfinite(logprob):
        row.finish = "abort"
        row.error = ModelError(
            f"the model gave a log-prob of {logprob}",
            where=f"prompt {row.prompt.prompt.id!r}, response token {len(row.ids)}",
            cure="look for a diverged or damaged checkpoint; lower the learning rate",
        )
        return
    row.ids.append(token)
    row.logprobs.append(logprob)
    stopped = len(row.ids) >= row.rules.least and row.rules.texts.stopped(row.prompt.ids, row.ids)
    if stopped or token in row.rules.end_ids:
        row.finish = "stop"
    elif len(row.ids) >= row.most:
        row.finish = "length"
    elif row.unwanted:
        row.finish = "abort"


def _banned(rows: Sequence[Response], logits: Tensor) -> Tensor | None:
    """``[R, V]`` bool, True at the end tokens of rows still too short to end; None if there is no such row."""
    short = [i for i, r in enumerate(rows) if len(r.ids) < r.rules.least and r.rules.end_ids]
    if not short:
        return None
    banned = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    for i in short:
        banned[i, torch.tensor(rows[i].rules.end_ids)] = True
    return banned
