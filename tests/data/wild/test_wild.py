"""Files of the wild: each ends in a plain error or a named warning, or is read right; never otherwise."""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from corpus import CORPUS, TREE, demos, lines, put

from plaudit.cli.main import main
from plaudit.data.load import load_records
from plaudit.data.reading.opening import guards
from plaudit.errors import DataError
from plaudit.records import Ranking


def said_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of a command, and all that it says."""
    code = main(words)
    out = capsys.readouterr()
    return code, out.out + out.err


@pytest.mark.parametrize("name", CORPUS)
def test_check_says_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CORPUS[name]
    code, text = said_of(["data", "check", str(put(case, tmp_path / name))], capsys)
    assert "BUG" not in text and "Traceback" not in text
    assert code == case.code, text
    assert case.said in text or case.trains, text
    if code:
        assert name in text and "fix:" in text, "an error says where, and what to do"
        assert len(text) < 6000


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 190
    assert len({case.stage for case in CORPUS.values()}) == 7


# Sizes: with a small limit, so that no test needs a large file


def test_a_line_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(guards, "GB", 2**20)
    path = tmp_path / "long.jsonl"
    path.write_bytes(lines({"prompt": "a" * 70_000, "response": "b"}))
    with pytest.raises(DataError, match="a line of more than") as caught:
        load_records(str(path), max_gb=16)
    assert "--max-gb (now 16" in caught.value.cure
    assert len(load_records(str(path), max_gb=32).records) == 1


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz", "a.txt.gz"])
def test_a_gzip_bomb_is_refused(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(guards, "LOOSE", 2**16)
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"\n" * 2**21, mtime=0))
    with pytest.raises(DataError, match="no text is packed so tightly"):
        load_records(str(path))


def test_blank_lines_without_end_are_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(guards, "MOST_BLANK", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(demos() + b"\r\n" * 1000)
    assert len(load_records(str(path)).records) == 4
    path.write_bytes(demos() + b"\n" * 1001)
    with pytest.raises(DataError, match="blank lines in a row"):
        load_records(str(path))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json", "a.csv", "a.txt"])
def test_a_file_that_is_too_large_is_refused(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(guards, "GB", 2**10)
    path = tmp_path / name
    data = lines(*({"prompt": f"{i}" * 9, "response": "b"} for i in range(500)))
    path.write_bytes(gzip.compress(data, mtime=0) if name.endswith("gz") else data)
    with pytest.raises(DataError, match="more than 16 GB of data|a line of more"):
        load_records(str(path))
    assert load_records(str(path), max_gb=20_000).records


def test_split_trees_are_whole_again(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(*TREE[:2]))
    (tmp_path / "b.jsonl").write_bytes(lines(*TREE[2:]))
    loaded = load_records(f"{tmp_path / 'a.jsonl'},{tmp_path / 'b.jsonl'}")
    [record] = loaded.records
    assert isinstance(record, Ranking) and record.responses == ("yes", "no") and record.ranks == (1, 2)


def test_a_few_cases_of_the_fuzzer(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
    import fuzz

    found = [fuzz.case(number, tmp_path) for number in range(150)]
    assert [traceback for _, traceback in found if traceback] == []
    assert {name for name, _ in found} == set(fuzz.TARGETS)


def test_a_warning_names_the_first_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(demos("a\u202eb", "c\u202ed"))
    [note] = load_records(str(path)).notes
    assert note.startswith("2 texts that change the direction of writing")
    assert re.search(r"first \S+a\.jsonl:5 · prompt · found 'a\\u202eb'|first .*:5 · prompt · found", note)
