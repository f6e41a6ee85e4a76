"""`plaudit compare`: which of two models or more people prefer, and the pairs to ask them about.

`plaudit select`: which of these pairs they should be asked about first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from plaudit.cli.generate import add_sampling_flags, write_responses
from plaudit.cli.parser import Parser, add_field_flag, answer, show
from plaudit.config.load import pairs_of
from plaudit.errors import ConfigError, DataError
from plaudit.records import Judgement

ABOUT = """Win rates and strengths of models from blind judgements, with intervals:

  plaudit compare judgements.jsonl [--json standings.json]

or the pairs to be judged, answered on the spot by the models of two runs or more:

  plaudit compare runs/sft runs/ppo --prompts prompts.jsonl --out pairs.jsonl
  plaudit annotate serve pairs.jsonl"""

SELECT = """Order pairs by what a reward model can learn from their labels, for a project that asks by priority:

  plaudit select pairs.jsonl --reward runs/ensemble --out priorities.jsonl
  plaudit annotate prioritise pairs priorities.jsonl"""


def run(command: str, argv: list[str]) -> int:
    """Compare what was judged, or generate what is to be judged; or order it."""
    if command == "select":
        return _select(argv)
    parser = Parser("compare", ABOUT)
    parser.add_argument(
        "sources", nargs="+", metavar="FILE | RUN RUN ...",
        help="judgements, or models: runs, hub names, endpoints as judge:MODEL@ADDRESS",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, default=None, help="write the standings here as well")
    parser.add_argument("--prompts", default="", help="let the models answer these: a file or a hub name")
    parser.add_argument(
        "--out", type=Path, default=None, help="where the responses go: .jsonl, .json, .parquet"
    )
    add_sampling_flags(parser)
    add_field_flag(parser)
    given = parser.parse_args(argv)
    return _generate(given) if given.prompts else _judge(given)


def _judge(given: Any) -> int:
    if len(given.sources) != 1 or given.out:
        raise ConfigError(
            "models are compared on prompts, and none are given",
            where="command line",
            cure="add --prompts FILE --out pairs.jsonl; or give one file of judgements, without --out",
        )
    from plaudit.data.load import load_records
    from plaudit.machine import check_writable
    from plaudit.preferences.compare import as_text, compare

    if given.json:
        check_writable(given.json, "--json")

    loaded = load_records(given.sources[0], fields=pairs_of(given.field))
    if loaded.kind != "judgement":
        cure = "give judgements: prompt, response_a, response_b, model_a, model_b, strength or label"
        if loaded.kind == "comparison":
            cure = f"let them be judged first: plaudit annotate serve {given.sources[0]}"
        raise DataError(f"the data are of kind {loaded.kind}", where=given.sources[0], cure=cure)
    found = compare([r for r in loaded.records if isinstance(r, Judgement)], seed=given.seed)
    show(as_text(found))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(
            json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        show(f"written to {given.json}")
    return 0


def _generate(given: Any) -> int:
    if given.out is None:
        raise ConfigError("--prompts needs --out", where="command line", cure="add --out pairs.jsonl")
    write_responses(given.sources, given.prompts, given.out, given)
    show(f"judge them blind: plaudit annotate serve {given.out}")
    return 0


def _select(argv: list[str]) -> int:
    """`plaudit select`: score pairs, order them, write the order."""
    parser = Parser("select", SELECT)
    parser.add_argument("source", metavar="FILE", help="the pairs: a file, a directory, or a hub name")
    parser.add_argument(
        "--reward", nargs="*", default=[], help="reward models; a run with members is several"
    )
    parser.add_argument(
        "--by",
        choices=("disagreement", "margin", "random"),
        default="disagreement",
        help="what comes first: pairs the models disagree on (default), or are unsure of, or any",
    )
    parser.add_argument(
        "--batch", type=int, default=0, help="so many of the first also differ from each other (default: 0)"
    )
    parser.add_argument("--seed", type=int, default=0, help="breaks ties (default: 0)")
    parser.add_argument("--out", type=Path, required=True, help="a .jsonl file of ids and priorities")
    add_field_flag(parser)
    given = parser.parse_args(argv)
    if given.batch < 0:
        raise ConfigError(f"--batch is {given.batch}", where="command line", cure="give 0 or more")
    from plaudit.data.write import check_target, write_rows
    from plaudit.stages.respond.ask import ask_next

    check_target(given.out)
    priorities = ask_next(
        given.source,
        given.reward,
        given.by,
        batch=given.batch,
        seed=given.seed,
        tell=lambda text: print(text, file=sys.stderr),
        fields=pairs_of(given.field),
    )
    write_rows([{"id": key, "priority": value} for key, value in priorities.items()], given.out)
    answer({"out": str(given.out), "pairs": len(priorities), "by": given.by})
    show(f"{given.out}: {len(priorities)} pairs by {given.by}")
    return 0
