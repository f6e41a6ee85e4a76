"""`plaudit annotate`: the feedback web app."""

from __future__ import annotations

from typing import Any

from plaudit.cli.generate import add_sampling_flags, answered
from plaudit.cli.parser import Parser, add_field_flag
from plaudit.config.load import pairs_of
from plaudit.errors import ConfigError

ABOUT = """Collect feedback from people: a web app for comparisons, rankings, ratings, demonstrations and thumbs.

  plaudit annotate serve FILE.jsonl        open it and start; one local user, nothing to set up
  plaudit annotate serve PROMPTS.jsonl --models RUN RUN     the models answer first; you compare blind
  plaudit annotate serve --auth ...        people log in, by invitation links
  plaudit annotate judge PROJECT --judge judge:MODEL@URL    a model answers what is open, once it agrees with people
  plaudit annotate export PROJECT OUT.jsonl && plaudit reward --dataset OUT.jsonl ..."""
DB = "annotations.db"
INSTALL = "pip install 'plaudit[annotate]'"
TASKS = ("pairwise", "ranking", "rating", "demonstration", "thumbs")
WHATS = ("preferences", "rankings", "ratings", "kto", "demonstrations", "judgements", "annotations")


class _Sub(Parser):
    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog.removeprefix("plaudit "), options.pop("description", None) or "", **options)


def run(command: str, argv: list[str]) -> int:
    """Dispatch to the action."""
    given = _parser().parse_args(argv)
    try:
        from plaudit.annotate import commands
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("plaudit"):
            raise
        what = f"the annotation app needs the package {error.name}"
        raise ConfigError(what, where="plaudit annotate", cure=INSTALL) from error
    if given.action in ("serve", "import"):
        given.file = answered(given)
        # A file of responses is ours, and so are the names in it.
        given.fields = {} if given.models else pairs_of(given.field)
    return commands.run(given)


def _parser() -> Parser:
    parser = Parser("annotate", ABOUT)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=_Sub)
    _add_incoming(actions)
    _add_outgoing(actions)
    _add_judge(actions)
    for each in actions.choices.values():
        each.add_argument("--db", default=DB, help=f"file, or postgresql:// URL [{DB}]")
    return parser


def _add_incoming(actions: Any) -> None:
    """`serve` and `import`: where items come from."""
    serve = actions.add_parser("serve", help="serve the web app")
    serve.add_argument(
        "file", nargs="?", default="", metavar="FILE", help="import this first, and open its project"
    )
    serve.add_argument(
        "--host", default="127.0.0.1", help="address to listen on [127.0.0.1]; wider needs --auth"
    )
    serve.add_argument("--port", type=int, default=8000, help="port to listen on [8000]")
    serve.add_argument("--auth", action="store_true", help="people log in")
    serve.add_argument("--public-url", default="", metavar="URL", help="the address people type, https://...")
    serve.add_argument(
        "--plain-http", action="store_true", help="let --public-url be http://, inside a VPN for example"
    )
    serve.add_argument(
        "--proxy", default="", metavar="ADDRESS", help="the proxy whose X-Forwarded-For counts, such as 127.0.0.1"
    )
    serve.add_argument("--no-browser", action="store_true", help="do not open a browser")
    bring = actions.add_parser("import", help="add a data file to a project")
    bring.add_argument("file", metavar="FILE", help="any format that `plaudit data check` reads")
    bring.add_argument(
        "--gold", action="store_true", help="verdicts in the file are known answers (gold items)"
    )
    _add_origin(bring, "FILE is of `plaudit serve` or `plaudit chat`: candidate pairs; with --task, responses")
    for each in (serve, bring):
        each.add_argument("--project", default="", help="short name [from the file's name]")
        each.add_argument("--task", choices=TASKS, help="what is asked [from the kind of data]")
        each.add_argument("--guidelines", default="", metavar="FILE.md", help="guidelines of a new project")
        each.add_argument("--annotators", type=int, default=1, help="people per item, in a new project [1]")
        each.add_argument(
            "--edit-best", action="store_true", help="let people edit the best response, in a new project"
        )
        each.add_argument(
            "--models", nargs="+", default=[], metavar="RUN",
            help="let these answer the prompts in FILE: runs, models, or endpoints, judge:MODEL@ADDRESS",
        )
        each.add_argument("--samples", type=int, default=1, help="responses of each model [1]")
        each.add_argument(
            "--responses", default="", metavar="OUT.jsonl", help="where they go [NAME.responses.jsonl]"
        )
        each.add_argument("--max-gb", type=float, default=2.0, help="largest file, unpacked; uploads too [2]")
        each.add_argument("--max-rows", type=int, default=1_000_000, help="most rows of a file [1000000]")
        each.add_argument(
            "--max-text", type=int, default=10_000_000, help="longest prompt or response, in characters [10000000]"
        )
        add_sampling_flags(each)
        add_field_flag(each)


def _add_origin(parser: Any, about: str) -> None:
    parser.add_argument("--from", dest="origin", choices=("app", "served"), default="app", help=f"served: {about}")


def _add_outgoing(actions: Any) -> None:
    """What is done with a project that is there."""
    out = actions.add_parser("export", help="write answers as training data, with provenance")
    out.add_argument("project", metavar="PROJECT")
    out.add_argument("target", metavar="OUT.jsonl")
    _add_origin(out, "PROJECT is a file that `plaudit serve` or `plaudit chat` wrote: --what of its thumbs and edits")
    out.add_argument("--what", choices=WHATS, default="", help="[what fits the task]")
    out.add_argument("--at", type=int, default=0, metavar="REVISION", help="as it stood then [now]")
    out.add_argument(
        "--min-agreement", type=float, default=0.0, help="leave out what people agree on less [0]"
    )
    out.add_argument("--min-votes", type=int, default=1, help="leave out what fewer people answered [1]")
    out.add_argument("--without-flagged", action="store_true", help="leave out items that somebody flagged")
    out.add_argument("--method", choices=("majority", "dawid_skene"), default="majority", help="[majority]")
    actions.add_parser("status", help="projects and how far they are")
    backup = actions.add_parser("backup", help="copy a SQLite database while it is in use")
    backup.add_argument("target", metavar="FILE.db")
    invite = actions.add_parser("invite", help="print a one-time invitation link")
    invite.add_argument("--role", choices=("annotator", "reviewer", "admin"), default="annotator")
    invite.add_argument(
        "--project", default="", help="which they may use [annotators: none yet, reviewers: all]"
    )
    invite.add_argument("--public-url", default="http://127.0.0.1:8000", metavar="URL")
    ask = actions.add_parser(
        "prioritise", help="say what is asked first, from a file of item ids and priorities"
    )
    ask.add_argument("project", metavar="PROJECT")
    ask.add_argument("file", metavar="FILE.jsonl", help='lines such as {"id": "a-1", "priority": 0.9}')


def _add_judge(actions: Any) -> None:
    """`judge`: a model as an annotator."""
    judge = actions.add_parser("judge", help="compare a model with your people, and let it answer what is open")
    judge.add_argument("project", metavar="PROJECT")
    judge.add_argument(
        "--judge", required=True, metavar="TABLE", help="judge:MODEL@URL, or {kind = 'judge', ...} with more settings"
    )
    judge.add_argument("--limit", type=int, default=0, help="answer so many items, not all that are open")
    judge.add_argument("--calibrate", action="store_true", help="only compare it with the people")
    judge.add_argument(
        "--anyway", action="store_true", help="let it answer although it is not trusted"
    )
