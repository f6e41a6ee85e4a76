"""`plaudit data`: check files before they are trained on, and convert between formats."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from typing import Any, get_args

from plaudit.cli.parser import Parser, add_field_flag, answer, show
from plaudit.config.load import pairs_of
from plaudit.data.lint import Finding, lint, lint_split
from plaudit.data.load import Loaded, load_records
from plaudit.data.reading.rows import LARGEST_GB
from plaudit.data.write import Layout, check_target, write_records
from plaudit.errors import DataError
from plaudit.records import Kind, Record

EXIT_BAD = DataError.exit_code


def run(command: str, argv: list[str]) -> int:
    """Dispatch to check or convert."""
    parser = Parser("data", "Check data files, or convert them between formats.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="check|convert", parser_class=_Sub)
    check_parser = actions.add_parser(
        "check", help="what files hold, every bad row, what looks suspicious, and rows of one file in another"
    )
    check_parser.add_argument("files", nargs="+", metavar="FILE", help="a file, a directory, or a hub name")
    convert_parser = actions.add_parser("convert", help="read one format, write another")
    convert_parser.add_argument("source", metavar="IN", help="a file, a directory, or a hub name")
    convert_parser.add_argument(
        "target", metavar="OUT", help="its ending says the format: .jsonl .json .csv .parquet (.gz)"
    )
    convert_parser.add_argument(
        "--layout", choices=get_args(Layout), default="plaudit", help="field names to write"
    )
    for each in (check_parser, convert_parser):
        each.add_argument(
            "--kind", choices=get_args(Kind), help="read the rows as this kind; default: detected"
        )
        each.add_argument("--limit", type=int, default=0, help="only the first rows (0: all)")
        each.add_argument("--max-gb", type=float, default=LARGEST_GB, help="largest file, unpacked (default: 16)")
        add_field_flag(each)
    given = parser.parse_args(argv)
    return check(given) if given.action == "check" else convert(given)


class _Sub(Parser):
    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog.removeprefix("plaudit "), options.pop("description", None) or "", **options)


def check(given: Any) -> int:
    """Report on each file, and on those before it that share prompts with it; 65 if any of them cannot be used."""
    bad = 0
    files: list[dict[str, Any]] = []
    before: dict[str, tuple[Record, ...]] = {}
    for source in given.files:
        try:
            loaded = load_records(
                source, given.kind, limit=given.limit, fields=pairs_of(given.field), max_gb=given.max_gb
            )
        except DataError as error:
            show(f"{source}: cannot be used")
            print(error, file=sys.stderr)
            bad += 1
            files.append({"file": source, "error": error.what, "where": error.where, "cure": error.cure})
            continue
        show(f"{source}: {len(loaded.records)} x {loaded.kind} from {loaded.rows} rows · {loaded.format}")
        _show_notes(loaded.notes)
        findings = lint(loaded.records)
        for finding in findings:
            _show_finding(finding, finding.code)
        files.append(_figures(source, loaded) | {"findings": [dataclasses.asdict(finding) for finding in findings]})
        for other, records in before.items():
            for finding in lint_split(records, loaded.records):
                _show_finding(finding, f"{finding.code}  with {other}:")
        before[source] = tuple(loaded.records)
    answer({"files": files})
    return EXIT_BAD if bad else 0


def convert(given: Any) -> int:
    """Read, write, say what was written."""
    check_target(given.target)
    loaded = load_records(
        given.source, given.kind, limit=given.limit, fields=pairs_of(given.field), max_gb=given.max_gb
    )
    changed = write_records(loaded.records, given.target, given.layout)
    show(f"{given.target}: {len(loaded.records)} x {loaded.kind}, read from {loaded.format}")
    _show_notes((*loaded.notes, *changed))
    answer(_figures(given.target, loaded) | {"changed": changed})
    return 0


def _figures(name: str, loaded: Loaded) -> dict[str, Any]:
    return {
        "file": name, "records": len(loaded.records), "kind": loaded.kind, "rows": loaded.rows,
        "format": loaded.format, "notes": loaded.notes,
    }  # fmt: skip


def _show_finding(finding: Finding, title: str) -> None:
    examples = ", ".join(map(str, finding.examples))
    counted = f"{finding.count} of {finding.among} {finding.unit} ({finding.share:.1%})"
    show(f"  {title}  {counted}{', in rows such as ' if examples else ''}{examples}")
    show(f"      {finding.advice}")


def _show_notes(notes: Iterable[str]) -> None:
    for note in notes:
        show(f"  note  {note}")
