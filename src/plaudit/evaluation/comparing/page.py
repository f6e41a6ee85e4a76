"""The page of a comparison: one section for each kind of run, and never the headline of one of them as that of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from markupsafe import Markup

from plaudit.evaluation import charts
from plaudit.evaluation.comparing.distance import (
    Track,
    change_at,
    common_kl,
    difference,
    mean_change,
    track_of,
)
from plaudit.evaluation.comparing.seeds import REPEATED, in_groups, value_of
from plaudit.evaluation.comparing.trials import Group, Trial, by_kind, differing, groups_of
from plaudit.evaluation.curves import HELD_OUT
from plaudit.evaluation.kinds import KINDS, kind_of, verdict
from plaudit.evaluation.page import Cell, Chart
from plaudit.evaluation.words import THIN, number, signed, span
from plaudit.runs.reading import Run
from plaudit.tracking.names import METRICS

MOST_LINES = len(charts.LINES)
"""Lines in one chart, each in a colour of its own: of more nobody could tell which is which."""


@dataclass(frozen=True, slots=True)
class Line:
    """A run in a table."""

    name: str
    cells: list[Cell]
    quiet: bool = False
    """It did not end as it was told to."""


@dataclass(frozen=True, slots=True)
class Table:
    """Runs below each other."""

    head: list[str]
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class Section:
    """The runs of one kind."""

    title: str
    lead: str
    results: Table
    repeated: Table | None
    """Mean and spread of runs that differ by seed only."""
    settings: Table | None
    """The settings in which the runs differ."""
    drawings: list[Chart] = field(default_factory=list)


def sections(trials: Sequence[Trial]) -> list[Section]:
    """One for each kind of run, the kinds with several runs first."""
    kinds = sorted(by_kind(trials).items(), key=lambda item: (-len(item[1]), list(KINDS).index(item[0])))
    return [_section(name, each) for name, each in kinds]


def headline(trials: Sequence[Trial]) -> tuple[str, str]:
    """What stands at the top: how many runs, and how many of them failed."""
    failed = [trial.name for trial in trials if trial.failed]
    lead = "Each run has its own verdict below; there is none for all of them together."
    if failed:
        lead += f" {len(failed)} of {len(trials)} did not end as told: {', '.join(failed)}."
    return f"{len(trials)} runs side by side.", lead


def _section(kind: str, trials: Sequence[Trial]) -> Section:
    groups = groups_of(trials)
    tracks = _tracks(trials) if kind == "policy" else {}
    # A run that failed is shown, and decides nothing: neither how far all of them came, nor which is best.
    sound = {trial.name: tracks[trial.name] for trial in trials if trial.name in tracks and not trial.failed}
    kl = common_kl(list(sound.values()))
    return Section(
        title=f"{' / '.join(dict.fromkeys(kind_of(t.run).title for t in trials))}: {_count(len(trials), 'run')}",
        lead=_lead(groups, sound, kl) if kind == "policy" else "",
        results=_results(kind, trials, tracks, kl),
        repeated=_repeated(groups, tracks, kl),
        settings=_settings(trials),
        drawings=_drawings(kind, trials, tracks),
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _tracks(trials: Sequence[Trial]) -> dict[str, Track]:
    """The evaluations of the runs that have some, by one judge that they share; none where they share none.

    That is the gold reward if all of them have the same one, or else the reward that they were trained on.
    """
    for judge in ("gold", "reward"):
        tracks = {t.name: track_of(t.run.path, judge) for t in trials}
        evaluated = [t for t in trials if len(tracks[t.name].points) > 1]
        everywhere = judge == "reward" or len(evaluated) == sum(_is_evaluated(t.run) for t in trials)
        # A run that failed decides nothing, so it is left out where it alone has another judge.
        same = _judges(evaluated, judge)
        if everywhere and len(same) < 2:
            return {t.name: tracks[t.name] for t in evaluated if t.judge(judge) in same or not same}
    return {}


def _judges(trials: Sequence[Trial], role: str) -> set[str]:
    """The different judges of the runs that did not fail."""
    return {trial.judge(role) for trial in trials if not trial.failed}


def _not_ranked(trials: Sequence[Trial]) -> str:
    """Why runs with different judges are not compared, in words; "" where they have the same one."""
    sound = [trial for trial in trials if not trial.failed and _is_evaluated(trial.run)]
    if len(_judges(sound, "reward")) < 2:
        return ""
    golds = len(_judges(sound, "gold"))
    gold = "do not have the same gold reward" if golds > 1 else "have no gold reward that all of them share"
    return (
        f"The runs were trained on different rewards, and {gold}. A number of one reward says nothing beside a number "
        "of another, so they are not ranked, and the rewards in the table are each run's own. Train all of them with "
        "the same --gold, and it ranks them."
    )


def _is_evaluated(run: Run) -> bool:
    return len(run.summary.get("curve") or []) > 1


def _lead(groups: Sequence[Group], tracks: Mapping[str, Track], kl: float | None) -> str:
    """What the rewards are at equal distance, in words; one is called better only where the interval allows it."""
    trials = [trial for group in groups for trial in group.trials]
    if not tracks and (why := _not_ranked(trials)):
        return why
    if kl is None:
        if len(tracks) < 2:
            return (
                "Fewer than two of the runs ended and were evaluated: there is nothing to compare at equal distance."
            )
        near = min(tracks, key=lambda name: tracks[name].reach)
        return (
            f"There is no common distance: {near} stayed within {number(tracks[near].reach)} nats of its start. "
            "The table shows where each run ended."
        )
    judge = next(iter(tracks.values())).judge
    name = "gold reward" if judge == "gold" else "reward they were trained on"
    other = judge == "reward" and len(_judges(trials, "gold")) > 1
    several = any(len(group.trials) > 1 for group in groups)
    gains = {
        (group.name if several else group.trials[0].name): change_at(
            [tracks[trial.name] for trial in group.trials if trial.name in tracks], kl
        )
        for group in groups
    }
    means = {who: estimate.value for who, gain in gains.items() if (estimate := mean_change(gain))}
    text = (
        "A policy that went further has more of the reward for that reason alone, so they are compared at a KL of "
        f"{number(kl, 1)} nats per response, which all that finished have reached. "
        f"{'They do not have the same gold reward, so it is no measure for all of them. ' if other else ''}There "
    )
    if len(means) < 2:
        return text + ", ".join(f"{who} had gained {signed(mean)} of the {name}" for who, mean in means.items()) + "."
    first, second = sorted(means, key=lambda who: -means[who])[:2]
    text += f"{first} had gained the most of the {name} ({signed(means[first])})"
    gap = difference(gains[first], gains[second], len(means))
    if gap is None:
        return f"{text}; {second} was evaluated on other prompts, so no difference can be taken."
    clear = "more than" if gap.low > 0 else "with no clear difference to"
    return (
        f"{text}, {clear} {second}: {signed(gap.value)}, interval {span(gap.interval, 'signed')} over "
        f"{_count(gap.n, 'prompt')}, at 95{THIN}% for all pairs of {len(means)}. It does not tell how much another "
        f"seed would change{'' if several else ': each has one seed here'}."
    )


def _results(kind: str, trials: Sequence[Trial], tracks: Mapping[str, Track], kl: float | None) -> Table:
    """One line a run: its verdict, at equal distance what it gained, and the figures of its kind."""
    # The figures of the run's own page, so that both say the same numbers.
    figures = [{f.label: f for f in KINDS[kind].figures(trial.run)} for trial in trials]
    labels = list(dict.fromkeys(label for each in figures for label in each))
    head = ["Run", "Seed", "What came of it"]
    if kl is not None:
        judge = next(iter(tracks.values())).judge
        head.append(f"Change of the {'gold reward' if judge == 'gold' else 'reward'} at KL {number(kl, 1)}")
    lines = []
    for trial, known in zip(trials, figures, strict=True):
        cells = [Cell(trial.seed), _ended(trial)]
        if kl is not None:
            gain = mean_change(change_at([tracks[trial.name]], kl)) if trial.name in tracks else None
            cells.append(Cell(signed(gain.value), span(gain.interval, "signed")) if gain else Cell("–"))
        cells += [Cell(known[x].value, known[x].note) if x in known else Cell("–") for x in labels]
        lines.append(Line(trial.name, cells, quiet=bool(trial.failed)))
    return Table([*head, *labels], lines)


def _ended(trial: Trial) -> Cell:
    judged = verdict(trial.run)
    if trial.failed:
        return Cell("Did not finish", f"{trial.failed}. Until then: {judged.headline}", "bad")
    return Cell(judged.headline, "", judged.tone)


def _repeated(groups: Sequence[Group], tracks: Mapping[str, Track], kl: float | None) -> Table | None:
    """Mean and spread over seeds, at equal distance and at the end; failed runs are left out and counted."""
    if all(len(group.trials) < 2 for group in groups):
        return None
    runs = [trial.run for group in groups for trial in group.trials]
    shown = {
        label: figure
        for figure, label in REPEATED.items()
        if any(value_of(run, figure) is not None for run in runs)
    }
    lines = []
    for group in groups:
        done = [trial for trial in group.trials if not trial.failed]
        of_all = f"{len(done)} of {len(group.trials)}" if len(done) < len(group.trials) else str(len(done))
        cells = [Cell(of_all)]
        if kl is not None:
            gains = [mean_change(change_at([tracks[t.name]], kl)) for t in done if t.name in tracks]
            cells.append(_spread([gain.value for gain in gains if gain]))
        for figure in shown.values():
            values = [value_of(trial.run, figure) for trial in done]
            cells.append(_spread([value for value in values if value is not None]))
        lines.append(Line(group.name, cells))
    distant = [f"Change at KL {number(kl, 1)}"] if kl is not None else []
    return Table(["Settings", "Seeds", *distant, *shown], lines)


def _spread(values: Sequence[float]) -> Cell:
    """Mean over seeds, with the standard deviation and the extremes; and that they fall into two groups."""
    if not values:
        return Cell("–")
    if len(values) == 1:
        return Cell(number(values[0]), "one seed")
    note = f"sd {number(stdev(values))}; {number(min(values))} to {number(max(values))}"
    groups = in_groups(values)
    return Cell(number(fmean(values)), f"{note}; {groups}" if groups else note, "bad" if groups else "flat")


def _settings(trials: Sequence[Trial]) -> Table | None:
    differ = differing(trials)
    if not differ:
        return None
    lines = [
        Line(trial.name, [Cell(values[index]) for values in differ.values()])
        for index, trial in enumerate(trials)
    ]
    return Table(["Run", *differ], lines)


def _drawings(kind: str, trials: Sequence[Trial], tracks: Mapping[str, Track]) -> list[Chart]:
    """The curves of the kind over each other, and for policies the rewards over the root of the KL."""
    drawn: list[Chart] = []
    named = {trial.name: f"line-{index}" for index, trial in enumerate(trials[:MOST_LINES])}
    legend = tuple((colour, name) for name, colour in named.items())
    left_out = len(trials) - len(named)
    caption = f"The first {MOST_LINES} runs; {left_out} more are in the tables." if left_out > 0 else ""
    if len([name for name in tracks if name in named]) > 1:
        judge = next(iter(tracks.values())).judge
        lines = [_over_distance(tracks.get(name)) for name in named]
        svg = charts.overlay("Reward over distance, all runs", lines, x_label="√KL, in √nats")
        title = f"Change of the {'gold reward' if judge == 'gold' else 'reward'} over distance"
        drawn.append(Chart(title, Markup(svg), caption=caption, legend=legend, wide=True))
    for metric in KINDS[kind].curves:
        for name in dict.fromkeys((HELD_OUT.get(metric, metric), metric)):
            lines = [charts.Series(*trial.run.series(name)) for trial in trials[:MOST_LINES]]
            if sum(len(line.x) > 1 for line in lines) < 2:
                continue
            known = METRICS.get(name)
            label = (known.label if known else name) + (", held out" if name != metric else "")
            svg = charts.overlay(f"{kind} {name}, all runs", lines, x_label=KINDS[kind].unit)
            words = known.meaning if known else ""
            if metric.startswith("reward/") and len(_judges(trials, "reward")) > 1:
                words += " The runs were trained on different rewards: their levels cannot be compared."
            drawn.append(Chart(label, Markup(svg), legend=legend, caption=words.strip()))
            break
    return drawn


def _over_distance(track: Track | None) -> charts.Series:
    if track is None:
        return charts.Series([], [])
    points: list[Any] = [point for point in track.points if point.change]
    return charts.Series(
        [max(p.kl, 0.0) ** 0.5 for p in points], [fmean(p.change.values()) for p in points], sparse=True
    )
