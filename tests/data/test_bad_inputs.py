"""A corpus of bad files: each gives a DataError that says where, what and how to mend it."""

from __future__ import annotations

import gzip
import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from plaudit.data.load import load_records
from plaudit.data.reading.rows import BadRows
from plaudit.errors import DataError

FINE = b'{"prompt": "Hi", "response": "Hello"}\n'
PAIR = {"prompt": "Hi", "chosen": "a", "rejected": "b"}
JUDGED = {"prompt": "Hi", "response_a": "a", "response_b": "b"}


def _parquet(rows):
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def _row(**changes):
    return FINE + json.dumps({"prompt": "Hi", "response": "Hello"} | changes).encode() + b"\n"


def _only(row):
    return json.dumps(row).encode()


# name of the file -> (its bytes, what the error must mention)
CORPUS = {
    # Encoding
    "utf16-le.jsonl": (FINE.decode().encode("utf-16"), "UTF-16"),
    "utf16-be.jsonl": (b"\xfe\xff" + FINE.decode().encode("utf-16-be"), "UTF-16"),
    "utf16-unmarked.jsonl": (FINE.decode().encode("utf-16-le"), "UTF-16"),
    "utf32.jsonl": (FINE.decode().encode("utf-32"), "UTF-32"),
    "utf16.json": (b"\xff\xfe" + "[]".encode("utf-16-le"), "UTF-16"),
    "utf16.csv": ("prompt,response\na,b\n".encode("utf-16"), "UTF-16"),
    "latin1.jsonl": (FINE + '{"prompt": "é", "response": "b"}\n'.encode("latin-1"), ":2"),
    "latin1.json": ('[\n{"prompt": "é"}]'.encode("latin-1"), ":2"),
    "latin1.csv": ("prompt\nà\n".encode("latin-1"), "0xE0"),
    "surrogate.jsonl": (FINE + b'{"prompt": "\\ud800", "response": "b"}\n', "surrogate"),
    "surrogate-in-chat.jsonl": (b'{"messages": [{"role": "user", "content": "\\udfff"}]}', "surrogate"),
    "nul.jsonl": (FINE + b'{"prompt": "a\\u0000b", "response": "b"}\n', "NUL"),
    "raw-nul.jsonl": (FINE + b'{"prompt": "a\x00b", "response": "b"}\n', ":2"),
    "nul.csv": (b"prompt,response\na\x00b,c\n", "NUL"),
    # Compression
    "truncated.jsonl.gz": (gzip.compress(FINE * 500, mtime=0)[:-12], "too early"),
    "header-only.jsonl.gz": (gzip.compress(FINE, mtime=0)[:6], ""),
    "flipped.jsonl.gz": (gzip.compress(FINE * 50, mtime=0)[:-6] + b"\0\0\0\0\0\0", "damaged"),
    "garbage.jsonl.gz": (b"\x1f\x8b" + b"x" * 40, ""),
    "truncated.json.gz": (gzip.compress(b"[" + FINE + b"]", mtime=0)[:-12], "too early"),
    "truncated.csv.gz": (gzip.compress(b"prompt\n" + b"a\n" * 500, mtime=0)[:-12], "too early"),
    # JSON
    "broken.jsonl": (FINE + b'{"prompt": "Hi", \n' + FINE, ":2"),
    "single-quotes.jsonl": (FINE + b"{'prompt': 'Hi'}\n", ":2"),
    "two-objects.jsonl": (FINE + b'{"prompt": "a"} {"prompt": "b"}\n', "after the end of the object"),
    "not-an-object.jsonl": (FINE + b'["a"]\n"b"\n3\nnull\n', "4 faults"),
    "nan.jsonl": (FINE + b'{"prompt": "a", "response": "b", "score": NaN}\n', "nan"),
    "infinity.jsonl": (b'{"prompt": "a", "response": "b", "reward": -Infinity}\n', "-inf"),
    "overflow.jsonl": (b'{"prompt": "a", "response": "b", "reward": 1e999}\n', "inf"),
    "twice.jsonl": (FINE + b'{"prompt": "a", "prompt": "c", "response": "b"}\n', "twice"),
    "deep.jsonl": (FINE + b"[" * 100_000 + b"\n" + FINE, "nested too deep"),
    "deep-object.jsonl": (FINE + b'{"a":' * 100_000 + b"\n", "nested too deep"),
    "deep.json": (b"[" * 100_000, "nested too deep"),
    "huge-int.jsonl": (
        _only({"prompt": "a", "response": "b"})[:-1] + b', "reward": ' + b"9" * 5000 + b"}",
        "digits",
    ),
    "big-int.jsonl": (
        _only({"prompt": "a", "response": "b"})[:-1] + b', "reward": ' + b"9" * 400 + b"}",
        "bits",
    ),
    "cut.json": (b'[{"prompt": "a"}, {"prompt": "b"', ":1"),
    "no-comma.json": (b'[{"prompt": "a"}\n{"prompt": "b"}]', "comma"),
    "after-list.json": (b'[{"prompt": "a"}] x', "end of the list"),
    "scalar.json": (b'"prompt"', "expected a JSON object"),
    "list-of-texts.json": (b'["a", "b"]', "2 faults"),
    "columns.json": (b'{"prompt": {"0": "a"}, "response": {"0": "b"}}', "a table by columns (prompt, response)"),
    # CSV
    "ragged.csv": (b"prompt,response\na,b\nc\n", "1 cells where the header has 2"),
    "unquoted-comma.csv": (b"prompt,response\na,b,c\n", "3 cells where the header has 2"),
    "unquoted-newline.csv": (b"prompt,response\na,b\nc\nd,e\n", ":3"),
    "open-quote.csv": (b'prompt,response\na,"b\n', "broken CSV"),
    "text-after-quote.csv": (b'prompt,response\na,"b"c\n', "broken CSV"),
    "column-twice.csv": (b"prompt,prompt\na,b\n", "more than once"),
    "word-for-number.csv": (b"prompt,response,reward\na,b,good\n", "'good'"),
    "nan.csv": (b"prompt,response,reward\na,b,nan\n", "expected a finite number"),
    "huge.csv": (b"prompt,response,reward\na,b,1e300\n", "found 1e+300"),
    "huge.jsonl": (b'{"prompt": "a", "response": "b", "reward": -1e39}\n', "expected 16,777,216 at most in size"),
    "huge_margin.jsonl": (
        b'{"prompt": "a", "chosen": "b", "rejected": "c", "margin": 1e20}\n', "expected 16,777,216 at most in size"
    ),
    # Parquet
    "cut.parquet": (_parquet([PAIR])[:-20], "damaged Parquet"),
    "no-parquet.parquet": (b"hello", "damaged Parquet"),
    "bytes.parquet": (_parquet([{"prompt": b"a", "response": b"b"}]), "type bytes"),
    "nan.parquet": (_parquet([{"prompt": "a", "response": "b", "reward": float("nan")}]), "nan"),
    # Nothing there
    "empty.jsonl": (b"", "no rows"),
    "empty.jsonl.gz": (b"", "no rows"),
    "empty.json": (b"", "no rows"),
    "empty-list.json": (b"[]", "no rows"),
    "blank.jsonl": (b"\n \r\n\n", "no rows"),
    "mark-only.jsonl": (b"\xef\xbb\xbf", "no rows"),
    "empty.csv": (b"", "no rows"),
    "header.csv": (b"prompt,response\n", "no rows"),
    "empty.parquet": (b"", "damaged Parquet"),
    "unknown.docx": (b"hello", "unknown file type"),
    "no-fields.jsonl": (b"{}\n", "no known kind"),
    # Rows
    "missing-field.jsonl": (FINE + b'{"prompt": "a"}\n', "expected response"),
    "null.jsonl": (_row(response=None), "null"),
    "wrong-type.jsonl": (_row(response=["a"]), "response[0]"),
    "number-for-text.jsonl": (_row(prompt=7), "found 7"),
    "empty-response.jsonl": (_row(response=" \n"), "an empty response"),
    "empty-prompt.jsonl": (b'{"prompt": "a"}\n{"prompt": ""}\n', "an empty prompt"),
    "empty-chat.jsonl": (b'{"prompt": [], "answer": "1"}\n', "an empty prompt"),
    "prompt-ends-with-assistant.jsonl": (
        _only({"prompt": [{"role": "assistant", "content": "a"}]}),
        "ends with the assistant's turn",
    ),
    "chat-ends-with-user.jsonl": (_only({"messages": [{"role": "user", "content": "a"}]}), "role user"),
    "unknown-role.jsonl": (_only({"messages": [{"role": "wizard", "content": "a"}]}), "wizard"),
    "no-content.jsonl": (_only({"messages": [{"role": "user"}]}), "messages[0].content"),
    "messages-of-text.jsonl": (_only({"messages": ["a"]}), "expected an object with role"),
    "id-is-a-list.jsonl": (_row(id=[1]), "a list of 1"),
    "negative-margin.jsonl": (_only(PAIR | {"margin": -1}), "swap chosen and rejected"),
    "agreement.jsonl": (_only(PAIR | {"agreement": 1.5}), "from 0 to 1"),
    "unknown-label.jsonl": (_only(JUDGED | {"label": "C"}), "'C'"),
    "bool-label.jsonl": (_only(JUDGED | {"label": True}), "found true"),
    "strength.jsonl": (_only(JUDGED | {"strength": 3}), "found 3"),
    "half-strength.jsonl": (_only(JUDGED | {"strength": 0.5}), "whole number"),
    "contradiction.jsonl": (_only(JUDGED | {"strength": 2, "label": "a"}), "contradicts"),
    "no-labels.jsonl": (_only(JUDGED | {"labels": {}}), "no label"),
    "labels-list.jsonl": (_only(JUDGED | {"labels": ["a"]}), "expected an object"),
    "bool-response.jsonl": (_only(JUDGED | {"label": "a", "response_a": False}), "response_a"),
    "one-response.jsonl": (_only({"prompt": "a", "responses": ["x"], "ranks": [1]}), "expected 2 to 9"),
    "ranks-missing.jsonl": (_only({"prompt": "a", "responses": ["x", "y"], "ranks": [1]}), "1 ranks for 2"),
    "ranks-from-2.jsonl": (
        _only({"prompt": "a", "responses": ["x", "y"], "ranks": [2, 3]}),
        "best rank of 2",
    ),
    "ranks-words.jsonl": (_only({"prompt": "a", "responses": ["x", "y"], "ranks": ["best", 2]}), "'best'"),
    "reward-word.jsonl": (_only({"prompt": "a", "response": "b", "reward": "7"}), "'7'"),
    "reward-bool.jsonl": (_only({"prompt": "a", "response": "b", "reward": True}), "found true"),
    "axes-words.jsonl": (_only({"prompt": "a", "response": "b", "axes": {"wit": "high"}}), "axes.wit"),
    "class.jsonl": (_only({"text": "a", "label": "sunny"}), "'sunny'"),
    "chosen-is-a-chat-without-response.jsonl": (
        _only({"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}),
        "no turn of the assistant",
    ),
}


@pytest.mark.parametrize("name", CORPUS)
def test_bad_file(name, tmp_path):
    data, mentioned = CORPUS[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        load_records(str(path))
    error = caught.value
    assert mentioned in str(error)
    assert error.cure and name in error.where, "says where and how to mend it"
    assert len(str(error)) < 4000
    if isinstance(error, BadRows):
        assert all(f.where and f.field and f.found and f.cure for f in error.faults)


def test_the_corpus_is_large():
    assert len(CORPUS) >= 60


# Odd, but sound


SOUND = {
    "mark.jsonl": (b"\xef\xbb\xbf" + FINE, "Hi"),
    "crlf.jsonl": (FINE.replace(b"\n", b"\r\n") * 2, "Hi"),
    "cr.jsonl": (FINE.replace(b"\n", b"\r") * 2, "Hi"),
    "no-last-newline.jsonl": (FINE + FINE.rstrip(), "Hi"),
    "mark.csv": ("\ufeffprompt,response\r\nHi,b\r\n".encode(), "Hi"),
    "newline-in-cell.csv": (b'prompt,response\n"H\ni",b\n', "H\ni"),
    "right-to-left.jsonl": (json.dumps({"prompt": "\u202eשלום", "response": "a"}).encode(), "\u202eשלום"),
    "zero-width.jsonl": (json.dumps({"prompt": "a\u200b", "response": "a"}).encode(), "a\u200b"),
    "decomposed.jsonl": (json.dumps({"prompt": "e\u0301", "response": "a"}).encode(), "e\u0301"),
    "emoji.jsonl": (b'{"prompt": "\\ud83d\\ude00", "response": "a"}', "\U0001f600"),
    "long-line.jsonl": (json.dumps({"prompt": "a" * 2_000_000, "response": "a"}).encode(), "a" * 2_000_000),
    "long-cell.csv": (b"prompt,response\n" + b"a" * 500_000 + b",b\n", "a" * 500_000),
    "not-zipped.jsonl.gz": (FINE, "Hi"),
    "zipped-in-disguise.jsonl": (gzip.compress(FINE), "Hi"),
    "two-members.jsonl.gz": (gzip.compress(FINE) + gzip.compress(FINE), "Hi"),
    "no-ending": (FINE, "Hi"),
}


@pytest.mark.parametrize("name", SOUND)
def test_odd_but_sound_file(name, tmp_path):
    data, prompt = SOUND[name]
    path = tmp_path / name
    path.write_bytes(data)
    assert load_records(str(path)).records[0].prompt == prompt


def test_warnings_are_listed(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(_only(PAIR | {"rejected": ""}))
    assert load_records(str(path)).notes == ("1 empty responses",)


def test_a_file_without_rights_and_a_directory_without_data(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no data files"):
        load_records(str(tmp_path))
    (tmp_path / "a.jsonl").write_bytes(FINE)

    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        load_records(str(tmp_path / "a.jsonl"))
