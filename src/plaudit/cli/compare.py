"""`plaudit compare`: which of two models or more people prefer, and the pairs to ask them about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plaudit.cli.generate import add_sampling_flags, write_responses
from plaudit.cli.parser import Parser, add_field_flag, show
from plaudit.config.load import pairs_of
from plaudit.errors import ConfigError, DataError
from plaudit.records import Judgement

ABOUT = """Win rates and strengths of models from blind judgements, with intervals:

  plaudit compare judgements.jsonl [--json standings.json]

or the pairs to be judged, answered on the spot by the models of two runs or more:

  plaudit compare runs/sft runs/ppo --prompts prompts.jsonl --out pairs.jsonl
  plaudit annotate serve pairs.jsonl"""


def run(command: str, argv: list[str]) -> int:
    """Compare what was judged, or generate what is to be judged."""
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
