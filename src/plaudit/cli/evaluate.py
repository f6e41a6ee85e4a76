"""`plaudit evaluate`: the report card of a reward model or a policy, from its run directory."""

from __future__ import annotations

from pathlib import Path

from plaudit.cli.outcome import figures, plain_words
from plaudit.cli.parser import Parser, add_field_flag, show
from plaudit.config.load import pairs_of
from plaudit.errors import ConfigError, DataError
from plaudit.evaluation.benchmarks.table import as_text
from plaudit.evaluation.kinds import KINDS
from plaudit.evaluation.report import write_report
from plaudit.runs.files import BENCHMARK
from plaudit.runs.reading import run_directory

ABOUT = """Compute the figures of a run again and write them to its summary.json. For a reward model: accuracy
with its interval, Kendall's tau, calibration, and what length alone would reach; with --dataset on other
preferences, or on a file of RewardBench 1 or 2, RM-Bench or PPE by its own rule. For a policy: reward, KL,
perplexity and win rate against its start, from what the run sampled; --samples, --prompts and --gold sample the
start and the trained policy anew."""


def run(command: str, argv: list[str]) -> int:
    """Print the card."""
    parser = Parser("evaluate", ABOUT)
    parser.add_argument("what", choices=("reward", "policy"), help="what was trained in the run")
    parser.add_argument("run", type=Path, help="its run directory")
    parser.add_argument(
        "--dataset",
        default="",
        help="reward only: score these preferences, or this benchmark, instead of the held-out ones",
    )
    parser.add_argument("--samples", type=int, default=0, help="policy only: sample anew, so many responses a prompt")
    parser.add_argument("--prompts", default="", help="policy only: sample anew, with the prompts of this file")
    parser.add_argument("--gold", default="", help="policy only: sample anew, with this gold reward")
    add_field_flag(parser)
    given = parser.parse_args(argv)
    directory = run_directory(given.run)
    if not (directory / "metrics.jsonl").is_file():
        inside = ", ".join(sorted(str(p.parent) for p in directory.glob("*/metrics.jsonl")))
        raise DataError(
            "the directory holds several runs, not one", where=str(directory), cure=f"give one of {inside}"
        )
    # A run that has the rows of the other kind is told so; one without either says so itself.
    other = "policy" if given.what == "reward" else "reward"
    if not (directory / KINDS[given.what].rows).is_file() and (directory / KINDS[other].rows).is_file():
        raise ConfigError(
            f"this is a run of {'a policy' if other == 'policy' else 'a reward model'}",
            where=str(directory),
            cure=f"plaudit evaluate {other} {directory}",
        )
    anew = given.samples or given.prompts or given.gold
    if given.dataset and given.what == "policy":
        raise ConfigError(
            "evaluate policy takes no --dataset",
            where="command line, --dataset",
            cure="name prompts with --prompts FILE",
        )
    if anew and given.what == "reward" or given.samples < 0:
        raise ConfigError(
            "--samples, --prompts and --gold sample a policy anew; --samples is 1 or more", where="command line",
            cure="plaudit evaluate policy RUN --samples 8",
        )  # fmt: skip
    if given.dataset:
        from plaudit.stages.reward.evaluate import score_dataset

        directory = score_dataset(directory, given.dataset, pairs_of(given.field) or None)
    if anew:
        from plaudit.stages.online.again import evaluate_again

        directory = evaluate_again(
            directory, samples=given.samples, prompts=given.prompts, gold=given.gold, fields=pairs_of(given.field)
        )
    is_benchmark = (directory / BENCHMARK).is_file()
    card = KINDS["benchmark" if is_benchmark else given.what].card(directory)
    if is_benchmark:
        show(f"\n{as_text(card)}\n{plain_words(directory)}\n\nreport  {write_report(directory)}")
    else:
        show(figures(card))
    show(f"written to {directory / 'summary.json'}")
    return 0
