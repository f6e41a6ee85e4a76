# ruff: noqa: E501  (the text of the page is written as it stands there)
"""The page of the limits and its picture, from the results of limits.py."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

Row = dict[str, Any]

TEXT = """\
# Where each method ends

<!-- Written by benchmarks/limits.py from limits.json: `make limits` runs it, and a test compares the two. -->

With a reward r and a KL to the reference of weight beta, in units of the reward, the best policy is known:

    maximise  E[r] - beta KL(pi || ref)        is solved by        pi = ref exp(r / beta), normalised

So of a method that trains with a KL one can ask whether it ends there. All of them run here in
[a world of 121 words](README.md#the-curves), where all responses can be summed over. So distances are exact. They are total
variation: the most by which the probability of any set of responses differs; 0 is the same policy, 1 has nothing in
common. With beta {beta:g} the reference is {start_to_optimum:.2f} from the optimum, whose likeliest word has probability {best_word:.2f}; a
policy with all its probability on that word is {one_word:.2f} from it.

![Distance of each method's limit and runs from the optimum](../images/algorithms/limits.png)

{table}

- *Limit*: the policy that the method's expected gradient leads to. Where it depends on the coefficient in force, it is that
  of the seed.
- *Run*: {seeds} seeds, {iterations} iterations of {responses} responses; DPO and KTO once through pairs that the reference wrote. Settings
  are the defaults and what the row says, with a `kl_coef` (or `beta`) of {beta:g}, no penalty for a missing end, which would be
  part of the reward, and AdamW with a learning rate that falls from {lr:g} to 0.
- *KL coefficient in force*: the metric [`objective/kl_coef_in_force`](../why/kl-in-force.md) of the last iteration.

## The limits, and why

**KL in the reward** (REINFORCE, REINFORCE++, RLOO, PPO). The reward of a response is r less beta times its sampled
log-ratio, whose mean is the KL. The policy gradient of that is the gradient of E[r] - beta KL, which has one maximum: the
optimum. A baseline, a critic, and whitening of the advantages, which divides both parts by the same, leave it where it is.

**PPO with scaled rewards** (its default). The score is divided by its running standard deviation and the KL is not. So the
limit is the optimum of another beta: `kl_coef` times that deviation. {ppo}

**KL in the loss** (GRPO, Dr. GRPO, REINFORCE++ with a group baseline, PPO with `kl_in = "loss"`). Each token is charged with
the KL at its own place only. In the optimum the value of a beginning is the reward to be had after it *less the KL that
this costs*; here it is the reward alone. So at each place the distribution is ref exp(Q / beta), normalised, with Q the
expected reward after the token, computed from the last place to the first. For responses of one token the two are the
same; here they are {places_to_optimum:.2f} apart for the same beta. {grpo}

Where such advantages are whitened, the reward is divided by a deviation that shrinks as the policy becomes surer, and the KL
is not: {whitened}

**GRPO divided by the deviation of its group**, as in its paper. A reward of any size is then worth the same beside the KL.
{group} {tenth}

**The paper's form** also takes k3 as a loss, whose gradient is that of KL(ref || pi), and the mean over the tokens of a
response, which favours short ones. {paper}

**DAPO with a KL.** Groups whose rewards are all equal are left out, and the KL of their responses with them. Its paper has no
KL.

**Online DPO.** With the label "the better one is certainly better" the loss of a pair falls as long as the better response
gains: there is no finite optimum, and a run ends where its steps end. {online_dpo} With `label_smoothing = "score_gap"` the
target is sigma(score gap). The loss of a pair is then least where beta times the gap of the log-ratios *is* the gap of the
scores, and all pairs agree on the optimum: near it, not even the draw of the pairs makes noise.

**DPO** on pairs that Bradley-Terry annotators judged by r has the optimum as its limit, but the pairs are the reference's: a
pair is about the two responses in it, and the reference writes the best word once in {one_in}. So it takes many more of them.

**KTO.** Its value is bounded, so a response that is liked more often than not is raised without end, and any other is
lowered: there is no finite optimum.

**Best-of-n** tends to the distribution of the best of n. It has no KL coefficient, and its KL is known instead: at most
log n - (n - 1) / n, {bound:.3f} nats for n = 8. Its imitations here have {best_of_kl}; the optimum has {optimum_kl:.3f}.
"""


def page(results: Row) -> str:
    """docs/algorithms/limits.md."""
    facts, rows = results["world"], results["methods"]

    def found(name: str, settings: str = "") -> Row:
        return next(row for row in rows if (row["name"], row["settings"]) == (name, settings))

    sure, plain, group = found("online DPO"), found("GRPO"), found("GRPO", "scale group")
    paper, whitened = found("GRPO, the paper's form"), found("PPO", "the same, kl_in loss, kl_estimator k3")
    text = TEXT.format(
        **facts,
        one_word=1 - facts["best_word"],
        table=table(rows),
        ppo=f"It was {span(found('PPO')['in_force'])} at the end, for a `kl_coef` of {facts['beta']:g}.",
        grpo="The mean of a group has the response itself in it, so with groups of 8 the KL weighs 8/7 of `kl_coef`. "
        f"Both together are {mean(plain['limit_to_optimum'])} from the optimum.",
        whitened=f"PPO's coefficient fell to {span(whitened['in_force'], 3)}, and it ended with "
        f"{percent(whitened['largest'])} on one word.",
        group=f"Rewards here differ by up to 5, more than the deviation makes of them, and the KL weighs "
        f"{span(group['in_force'])}: the limit is {mean(group['limit_to_optimum'])} from the optimum, with "
        f"{percent(group['largest'])} on the best word.",
        tenth="With a tenth of the rewards and a tenth of the KL, which have the same optimum, its limit has "
        f"{percent([facts['tenth_best_word']])} on the best word and is {facts['tenth_to_optimum']:.2f} from the optimum; "
        "undivided, it stays the same.",
        paper=f"Its limit is {mean(paper['limit_to_optimum'])} from the optimum, with {percent(paper['largest'])} on "
        "one word.",
        online_dpo=f"Here that is {span(sure['to_optimum'])} from the optimum, with {percent(sure['largest'])} on the "
        "best word.",
        bound=math.log(8) - 7 / 8,
        best_of_kl=span(found("best-of-n", "one round of 8")["kl"], 3),
    )  # fmt: skip
    return text


def table(rows: Sequence[Row]) -> str:
    """One line a method."""
    lines = [
        "| method | settings | tends to | limit from the optimum | run from its limit | run from the optimum | "
        "KL coefficient in force |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            row["name"], row["settings"] or "default", row["tends_to"], span(row["limit_to_optimum"], 3),
            span(row["to_limit"], 3), span(row["to_optimum"], 3), span(row["in_force"], 3),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def span(values: Sequence[float | None], digits: int = 2) -> str:
    """The values of the seeds: one number where they agree, else the least and the most.

    >>> span([0.25, 0.25]), span([0.31, 0.29]), span([None])
    ('0.25', '0.29 to 0.31', '-')
    """
    known = sorted(f"{value:.{digits}f}" for value in values if value is not None)
    if not known:
        return "-"
    return known[0] if known[0] == known[-1] else f"{known[0]} to {known[-1]}"


def mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f}"


def percent(values: Sequence[float]) -> str:
    return f"{100 * fmean(values):.0f} %"


def draw(results: Row, file: Path) -> None:
    """Rings: the limits. Dots: the runs, one a seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    rows = results["methods"]
    figure, axis = plt.subplots(figsize=(7.4, 0.29 * len(rows) + 0.9), constrained_layout=True)
    for height, row in enumerate(reversed(rows)):
        ends, limits = row["to_optimum"], row["limit_to_optimum"]
        axis.scatter(ends, [height] * len(ends), s=22, color="#3465a4", alpha=0.75, label="runs" if not height else "")
        if limits:
            ring = {"facecolors": "none", "edgecolors": "#c4571b", "linewidths": 1.4}
            axis.scatter([fmean(limits)], [height], s=80, label="limit" if not height else "", **ring)
    names = [f"{row['name']}{', ' * bool(row['settings'])}{row['settings']}" for row in reversed(rows)]
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.set_xlim(left=-0.01)
    axis.set_xlabel("total variation from the optimum", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", linewidth=0.4, alpha=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False, loc="upper right")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=90)
    plt.close(figure)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(64).save(file, optimize=True)
