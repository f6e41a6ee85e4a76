"""`plaudit select`: which pairs annotators should be asked about first."""

from __future__ import annotations

import sys
from pathlib import Path

from plaudit.cli.parser import Parser, add_field_flag, answer, show
from plaudit.config.load import pairs_of
from plaudit.errors import ConfigError

ABOUT = """Order pairs by what a reward model can learn from their labels, for a project that asks by priority:

  plaudit select pairs.jsonl --reward runs/ensemble --out priorities.jsonl
  plaudit annotate prioritise pairs priorities.jsonl"""


def run(command: str, argv: list[str]) -> int:
    """Score, order, write."""
    parser = Parser("select", ABOUT)
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
