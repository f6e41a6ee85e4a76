"""`plaudit export`: a trained model in the formats of other programs, loaded again, measured, and judged by a gate."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from plaudit.errors import ConfigError
from plaudit.export.card import KEPT, as_values, card
from plaudit.export.nearness import FIGURES, SCORES, Side, nearness, probes
from plaudit.export.origin import Origin
from plaudit.export.write import Exported, targets_of
from plaudit.machine import check_writable
from plaudit.runs.files import EVALUATION, HELDOUT, SAMPLES, SUMMARY, Row, merge_json, read_json, read_lines
from plaudit.runs.lock import MANIFEST
from plaudit.stages.online.again import evaluate_again
from plaudit.stages.reward.evaluate import score_heldout
from plaudit.statistics.clustered import outcomes, ratio_over, share
from plaudit.statistics.intervals import Estimate
from plaudit.statistics.ranking import correlation_over

TEXTS = 100
COMPARES = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a figure, as ``gold_kept >= 0.9``."""

    name: str
    sign: str
    bound: float

    @classmethod
    def of(cls, text: str) -> Requirement:
        """Read what a user wrote.

        Raises:
            ConfigError: no condition, or a figure that is not measured.
        """
        read = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+0-9.eE]+)\s*", text)
        known = FIGURES | SCORES | KEPT
        try:
            if read is not None and read[1] in known:
                return cls(read[1], read[2], float(read[3]))
        except ValueError:
            pass
        raise ConfigError(
            f"{text!r} is no condition on a figure of an export", where="command line, --require",
            cure=f'write it as "gold_kept >= 0.9"; figures are {", ".join(known)}',
        )  # fmt: skip

    def holds(self, figure: Estimate) -> bool:
        """Whether the value, not its interval, meets the bound; an undefined one does not."""
        return bool(COMPARES[self.sign](figure.value, self.bound))


@dataclass(frozen=True, slots=True)
class Export:
    """What was written, and how near it is."""

    folder: Path
    """Holds the formats, README.md (the model card) and export.json."""
    figures: dict[str, dict[str, Estimate]]
    """Format -> figure -> value."""
    notes: list[str]
    """What is to be known of the formats."""
    failed: list[str]
    """Conditions that do not hold, in words."""


def run_export(
    source: str, words: Sequence[str], out: str = "", *, require: Sequence[str] = (), samples: int = 0
) -> Export:
    """Write a model in several formats and measure each as it loads again.

    Args:
        source: run, model or adapter directory, hub name, or GGUF file.
        words: formats, see `targets_of`.
        out: directory; "": ``export/`` in the source's directory.
        require: conditions, see `Requirement`; ``tokens_equal >= 1`` unless another is given for it.
        samples: responses to each prompt of the run by which gold reward and reward are measured; 0: not, unless a
            condition asks for it.

    Raises:
        ConfigError, ModelError, MachineError: before work, with the cure.
    """
    targets = targets_of(list(words))
    gates = [Requirement.of(text) for text in require]
    if "tokens_equal" not in {gate.name for gate in gates}:
        gates.append(Requirement("tokens_equal", ">=", 1.0))
    folder = Path(source)
    if not out and not folder.is_dir():
        raise ConfigError(f"{source} is no directory", where="command line, --out", cure="say where with --out DIR")
    target_dir = Path(out or folder / "export")
    check_writable(target_dir)
    samples = _samples(folder, targets, gates, samples)
    exported = Exported(source, targets)
    texts = _texts(folder)
    files: dict[str, str] = {}
    figures: dict[str, dict[str, Estimate]] = {}
    for target in targets:
        path = exported.write(target, target_dir)
        files[target] = path.name
        if exported.is_reward and target != "adapter" and (folder / HELDOUT).is_file():
            figures[target] = _scores_kept(folder, path)
        if target != "adapter" and not exported.is_reward:
            trained = Side.of(exported.load(), exported.tokenizer)
            figures[target] = nearness(trained, exported.read(target, path), texts)
            if samples and target != "merged":
                figures[target] |= _kept(folder, exported, target, path, samples)
    text = card(exported.name, _facts(folder, exported.origin), files, figures, exported.notes)
    exported.describe(target_dir, text)
    merge_json(target_dir / "export.json", as_values(figures, exported.notes))
    return Export(target_dir, figures, exported.notes, _failed(gates, figures))


def _samples(folder: Path, targets: Sequence[str], gates: Sequence[Requirement], samples: int) -> int:
    """How many responses to a prompt are needed; refuses what could not be measured, before anything is loaded."""
    asked = [gate.name for gate in gates if gate.name in KEPT]
    if not samples and not asked:
        return 0
    summary = read_json(folder / SUMMARY) if (folder / SUMMARY).is_file() else {}
    needed = {"gold_kept": "gold_start", "reward_kept": "reward_start", "win_rate": "reward_start"}
    for name in asked or ["reward_kept"]:
        if summary.get(needed[name]) is None:
            raise ConfigError(
                f"{name} cannot be measured: the summary of {folder} has no {needed[name]}", where="command line",
                cure="export a run that was trained with --gold, or leave the condition and --samples out",
            )  # fmt: skip
    if not set(targets) - {"merged", "adapter"}:
        raise ConfigError(
            f"{(asked or ['--samples'])[0]} is measured of what is quantised", where="command line, --to",
            cure="--to gguf:q8_0",
        )
    return samples or 2


def _texts(folder: Path) -> list[str]:
    """Up to a hundred texts: what the run's policy read and wrote, then texts on which tokenizers differ."""
    rows = [*read_lines(folder / SAMPLES)] if (folder / SAMPLES).is_file() else []
    whole = [row for row in rows if isinstance(row.get("prompt"), str) and isinstance(row.get("response"), str)]
    own = [row["prompt"] + row["response"] for row in whole]
    chosen = list(dict.fromkeys(own))[-TEXTS // 2 :]
    return [*chosen, *probes(TEXTS - len(chosen))]


def _kept(run: Path, exported: Exported, target: str, path: Path, samples: int) -> dict[str, Estimate]:
    """Gain over the start as a share of the trained model's: both answer the run's held-out prompts anew."""
    with TemporaryDirectory(dir=path.parent) as place:
        unpacked = Path(place) / "model"
        exported.unpack(target, path, unpacked)
        rows = [
            [*read_lines(evaluate_again(run, samples=samples, model=model) / EVALUATION)] for model in (None, unpacked)
        ]
    sides = [_gains(each) for each in rows]
    made = {"win_rate": _win_rate(*rows)}
    for name in ("gold", "reward"):
        whole, kept = (side.get(name, {}) for side in sides)
        prompts = sorted(whole.keys() & kept.keys())
        if prompts:
            made[f"{name}_kept"] = ratio_over([kept[p] for p in prompts], [whole[p] for p in prompts])
    return made


def _win_rate(trained: Sequence[Row], exported: Sequence[Row]) -> Estimate:
    """By the gold reward, or where there is none by the reward; all pairs of responses to a prompt, a tie is a half."""
    name = "gold" if any(row.get("gold") is not None for row in trained) else "reward"
    old, new = (
        [(str(row["prompt_id"]), float(row[name])) for row in rows if row["step"] > 0 and row.get(name) is not None]
        for rows in (trained, exported)
    )
    pairs = [(prompt, mine - theirs) for prompt, mine in new for other, theirs in old if prompt == other]
    return share(outcomes([gap for _, gap in pairs]), [prompt for prompt, _ in pairs])


def _scores_kept(run: Path, path: Path) -> dict[str, Estimate]:
    """`SCORES` of an exported reward model: its scores of the run's held-out rows against those of the run."""
    with TemporaryDirectory() as place:
        again = {str(row["id"]): row for row in read_lines(score_heldout(run, path, Path(place)))}
    kept = [(row, again[str(row["id"])]) for row in read_lines(run / HELDOUT) if str(row["id"]) in again]
    columns = ("chosen_score", "rejected_score") if kept and "chosen_score" in kept[0][0] else ("score",)
    scores = [[[float(row[name]) for name in columns] for row in pair] for pair in kept]
    prompts = [str(row["prompt_id"]) for row, _ in kept]
    alike = [float((s[0] > s[-1]) == (t[0] > t[-1]) if len(s) > 1 else (s[0] > 0) == (t[0] > 0)) for s, t in scores]
    one, other = ([value for pair in scores for value in pair[i]] for i in (0, 1))
    clusters = [prompt for prompt in prompts for _ in columns]
    return {"agreement": share(alike, prompts), "score_correlation": correlation_over(one, other, clusters)}


def _gains(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Reward -> prompt -> mean of the trained side less that of the start."""
    found: dict[tuple[str, str, bool], list[float]] = {}
    for row in rows:
        for name in ("gold", "reward"):
            if row.get(name) is not None:
                found.setdefault((name, str(row["prompt_id"]), row["step"] > 0), []).append(float(row[name]))
    gains: dict[str, dict[str, float]] = {}
    for name, prompt, trained in found:
        if trained and (name, prompt, False) in found:
            before, after = found[name, prompt, False], found[name, prompt, True]
            gains.setdefault(name, {})[prompt] = fmean(after) - fmean(before)
    return gains


def _facts(folder: Path, origin: Origin) -> dict[str, Any]:
    """What is known of how a model was made."""
    about = {"bases": origin.bases, "hub": origin.hub, "licence": origin.licence}
    if not (folder / MANIFEST).is_file():
        return about
    manifest, summary = read_json(folder / MANIFEST), read_json(folder / SUMMARY)
    inputs = {str(key): str(value) for key, value in (manifest.get("inputs") or {}).items()}
    return about | {"command": summary.get("command", ""), "inputs": inputs, "summary": summary}


def _failed(gates: Sequence[Requirement], figures: dict[str, dict[str, Estimate]]) -> list[str]:
    return [
        f"{target}: {gate.name} is {values[gate.name].value:.4g}, not {gate.sign} {gate.bound:g}"
        for gate in gates
        for target, values in figures.items()
        if gate.name in values and not gate.holds(values[gate.name])
    ]
