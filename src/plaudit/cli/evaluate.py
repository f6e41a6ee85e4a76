"""`plaudit evaluate`: the report card of a reward model or a policy, from its run directory."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from plaudit.cli.outcome import figures
from plaudit.cli.parser import Parser, add_field_flag, answer, show
from plaudit.config.load import pairs_of
from plaudit.errors import ConfigError, DataError
from plaudit.evaluation.benchmarks.table import as_text
from plaudit.evaluation.kinds import KINDS, in_words, kind_of, load_run
from plaudit.evaluation.kinds import card as card_of
from plaudit.evaluation.report import write_report
from plaudit.records import Judgement
from plaudit.runs.files import BENCHMARK, PAIRS, SUMMARY, merge_json
from plaudit.runs.reading import is_run, naming_odd_rows, read_run, run_directory, runs_in

ABOUT = """Compute the figures of a run again and write them to its summary.json. For a reward model: accuracy
with its interval, Kendall's tau, calibration, and what length alone would reach; with --dataset on other
preferences, or on a file of RewardBench 1 or 2, RM-Bench or PPE by its own rule. For a policy: reward, KL,
perplexity, win rate against its start (also at equal length), repetition and phrases, from what the run sampled.

With any of the flags below from --samples on, the start and the trained policy answer anew, and more is measured: the
KL exactly, how each reads what the other writes, held-out text that must not be forgotten, and what is refused of a
small set of requests. It becomes a page of its own. A run of sft or dpo has no reward: without these flags its own
card is shown, and its responses are judged by what --gold or --judge names.

  plaudit evaluate policy runs/ppo --samples 8 --gold rewards.py:score
  plaudit annotate serve runs/ppo/evaluations/again-final/pairs.jsonl
  plaudit evaluate policy runs/ppo/evaluations/again-final --judgements judgements.jsonl"""
ANEW = ("prompts", "gold", "judge", "harm", "heldout", "red_team")
"""Flags that ask for new responses, as ``--samples`` does."""


def run(command: str, argv: list[str]) -> int:
    """Print the card."""
    given = _parser().parse_args(argv)
    directory = run_directory(given.run)
    if not is_run(directory):
        inside = ", ".join(str(path) for path in runs_in(directory))
        raise DataError(
            "the directory holds several runs, not one", where=str(directory), cure=f"give one of {inside}"
        )
    # A run of the other kind is told so; one that has measured nothing says so itself.
    found = kind_of(read_run(directory)).name
    other = "reward" if found in ("reward", "benchmark") else "policy"
    if other != given.what:
        raise ConfigError(
            f"this is a run of {'a policy' if other == 'policy' else 'a reward model'}",
            where=str(directory),
            cure=f"plaudit evaluate {other} {directory}",
        )
    return (_policy if given.what == "policy" else _reward)(directory, given)


def _parser() -> Parser:
    parser = Parser("evaluate", ABOUT)
    parser.add_argument("what", choices=("reward", "policy"), help="what was trained in the run")
    parser.add_argument("run", type=Path, help="its run directory")
    parser.add_argument(
        "--dataset",
        default="",
        help="reward only: score these preferences, or this benchmark, instead of the held-out ones",
    )
    policy = parser.add_argument_group("policy only")
    policy.add_argument(
        "--judgements", default="", metavar="FILE",
        help="add what people say of an evaluation's pairs.jsonl: judgements that `plaudit annotate export` wrote",
    )  # fmt: skip
    anew = parser.add_argument_group("policy only: sample anew")
    anew.add_argument("--samples", type=int, default=0, help="so many responses to each prompt")
    anew.add_argument("--prompts", default="", metavar="FILE", help="with the prompts of this file")
    anew.add_argument(
        "--gold", default="", metavar="REWARD",
        help="with this gold reward, written as --reward is: a reward model, file.py:function, rule:NAME ...",
    )  # fmt: skip
    anew.add_argument(
        "--judge", default="", metavar="REWARD",
        help="ask this reward, which compares the responses of a group, about each pair in both orders",
    )  # fmt: skip
    anew.add_argument(
        "--harm", default="", metavar="REWARD",
        help="judge answers to harmful requests by this reward: from 0 to 1, harmful from 0.5 on (default: a rule)",
    )  # fmt: skip
    anew.add_argument(
        "--heldout", default="", metavar="FILE",
        help="measure forgetting on these texts (default: what the SFT of the run held out; none: leave it out)",
    )  # fmt: skip
    anew.add_argument(
        "--red-team", default="", metavar="FILE",
        help="requests to be refused, and harmless ones (default: 40 that come with Plaudit; none: leave it out)",
    )  # fmt: skip
    add_field_flag(parser)
    return parser


def _reward(directory: Path, given: Namespace) -> int:
    if given.samples or given.judgements or any(getattr(given, name) for name in ANEW):
        raise ConfigError(
            "a reward model gives no responses: --samples and the flags after it are for policies",
            where="command line", cure="plaudit evaluate policy RUN --samples 8",
        )  # fmt: skip
    if given.dataset:
        from plaudit.stages.reward.evaluate import score_dataset

        directory = score_dataset(directory, given.dataset, pairs_of(given.field) or None)
    is_benchmark = (directory / BENCHMARK).is_file()
    with naming_odd_rows(directory):
        card = KINDS["benchmark" if is_benchmark else "reward"].card(directory)
    answer({"run": str(directory), **card})
    if is_benchmark:
        show(f"\n{as_text(card)}\n\n{in_words(directory)}\n\nreport  {write_report(directory)}")
    else:
        show(figures(card))
    show(f"written to {directory / 'summary.json'}")
    return 0


def _add_people(directory: Path, source: str) -> None:
    """What people say of the pairs of an evaluation, into its summary.json."""
    from plaudit.data.load import load_records
    from plaudit.evaluation.responses.winning import by_people

    loaded = load_records(source)
    judgements = [record for record in loaded.records if isinstance(record, Judgement)]
    if not judgements:
        raise DataError(
            f"the data are of kind {loaded.kind}", where=source,
            cure="give judgements: plaudit annotate export PROJECT --what judgements",
        )  # fmt: skip
    merge_json(directory / SUMMARY, by_people(judgements, source))


def _policy(directory: Path, given: Namespace) -> int:
    if given.dataset:
        raise ConfigError(
            "evaluate policy takes no --dataset",
            where="command line, --dataset",
            cure="name prompts with --prompts FILE",
        )
    if given.samples < 0:
        raise ConfigError("--samples is 1 or more", where="command line, --samples", cure="--samples 8")
    anew = given.samples or any(getattr(given, name) for name in ANEW)
    if anew:
        from plaudit.stages.online.again import Beside, evaluate_again

        beside = Beside(given.judge, given.harm, given.heldout, given.red_team)
        fields = pairs_of(given.field)
        directory = evaluate_again(
            directory, samples=given.samples, prompts=given.prompts, gold=given.gold, fields=fields, beside=beside
        )
    if given.judgements:
        _add_people(directory, given.judgements)
    kind = kind_of(read_run(directory))
    card = card_of(directory)
    answer({"run": str(directory), **card})
    show(figures({name: card[name] for name in kind.headline if name in card}))
    for table in kind.tables(load_run(directory)):
        show(f"\n{table.as_text()}")
    show(f"\n{in_words(directory)}\n\nall {len(card)} figures are in {directory / 'summary.json'}")
    if anew or given.judgements:
        show(f"report  {write_report(directory)}")
    if (directory / PAIRS).is_file() and not given.judgements:
        show(f"let people judge the pairs: plaudit annotate serve {directory / PAIRS}")
    elif not anew and (directory / "model").is_dir():
        show(f"sample anew and measure more: plaudit evaluate policy {directory} --samples 4")
    return 0
