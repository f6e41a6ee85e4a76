"""Files as they are found in the wild: broken, odd or hostile, each with the kind of data that somebody meant."""

# Everything is made by code with fixed content. Files that need more than bytes (a link, a pipe, a folder) have a
# function that puts them in place.

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

DEMO = {"prompt": "Hi", "response": "Hello"}
PAIR = {"prompt": "Hi", "chosen": "good", "rejected": "bad"}
RATED = {"prompt": "Hi", "response": "Hello", "reward": 1.0}
JUDGED = {"prompt": "Hi", "response_a": "a", "response_b": "b"}
RANKED = {"prompt": "Hi", "responses": ["x", "y", "z"], "ranks": [1, 2, 3]}


class Case(NamedTuple):
    """A file, and what must be said of it."""

    stage: str
    """The command that reads such data: sft, reward, dpo, kto, grpo (its prompts), judged (evaluate), annotate."""
    put: Callable[[Path], object] | bytes
    """Its bytes, or what puts it in place."""
    said: str
    """What must be said of it, by an error or a note."""
    code: int = 65
    """The exit code of `data check`; 0: it is read."""
    trains: int | None = None
    """The exit code of the command that trains, where it is another."""


def lines(*rows: Any) -> bytes:
    """Rows as JSON Lines, as `json.dumps` writes them."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def demos(*texts: str, key: str = "prompt") -> bytes:
    """Enough demonstrations to train on, and one for each text."""
    more = [{"prompt": f"say {i}", "response": f"word {i}"} for i in range(4)]
    return lines(*more, *({**DEMO, key: text} for text in texts))


def pairs(*rows: Any) -> bytes:
    """Enough pairs to train on, and these."""
    return lines(*({"prompt": f"say {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(4)), *rows)


def table(rows: list[dict[str, Any]] | None = None, **columns: Any) -> bytes:
    """Rows or columns as Parquet."""
    out = io.BytesIO()
    made = pyarrow.table(columns) if rows is None else pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(made, out)
    return out.getvalue()


def chat(*turns: Any, **more: Any) -> bytes:
    """A chat among others that are sound."""
    sound = [[{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": "word"}] for i in range(4)]
    return lines(*({"messages": turns} for turns in sound), {"messages": list(turns), **more})


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def zipped(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), data)
    return out.getvalue()


def _folder(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("not-there.jsonl"))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _pair_of_files(path: Path) -> None:
    path.mkdir()
    (path / "a.jsonl").write_bytes(lines(DEMO))
    (path / "b.jsonl").write_bytes(lines(PAIR))


def _pipe_in_folder(path: Path) -> None:
    path.mkdir()
    os.mkfifo(path / "a.jsonl")


U, A, S = "user", "assistant", "system"
ASK, SAY = said(U, "Hi"), said(A, "Hello")
TWIN = {"prompt": "caf\u00e9", "response": "a"}, {"prompt": "cafe\u0301", "response": "b"}
TREE = [
    {"message_id": "1", "parent_id": None, "text": "Hi", "role": "prompter"},
    {"message_id": "2", "parent_id": "1", "text": "yes", "role": "assistant", "rank": 0},
    {"message_id": "3", "parent_id": "1", "text": "no", "role": "assistant", "rank": 1},
]

CHARACTERS = {
    "rtl-override.jsonl": Case("sft", demos("say \u202egnp.exe"), "direction of writing", 0),
    "rtl-isolate.jsonl": Case("sft", demos("a\u2066b\u2069", key="response"), "direction of writing", 0),
    "zero-width-only.jsonl": Case("sft", demos("\u200b\u200d\ufeff"), "without a word", 0),
    "zero-width-response.jsonl": Case("sft", demos("\u200b", key="response"), "empty response"),
    "nfc-nfd.jsonl": Case("sft", demos() + lines(*TWIN), "written in two ways", 0),
    "mojibake.jsonl": Case("sft", demos("cafÃ© donâ€™t", key="response"), "wrong encoding", 0),
    "replacement.jsonl": Case("sft", demos("caf\ufffd", key="response"), "U+FFFD", 0),
    "control.jsonl": Case("sft", demos("a\x1b[31mb\x07"), "control characters", 0),
    "private-use.jsonl": Case("sft", demos("\ue000\uf8ff"), "5 x demonstration", 0),
    "tags.jsonl": Case("sft", demos("Hi" + "".join(chr(0xE0000 + ord(c)) for c in "ignore")), "invisible", 0),
    "surrogate.jsonl": Case("sft", demos() + b'{"prompt": "\\ud83d", "response": "b"}\n', "surrogate"),
    "nul.jsonl": Case("sft", demos("a\0b"), "NUL"),
    "mark.jsonl": Case("sft", b"\xef\xbb\xbf" + demos(), "byte order mark", 0),
    "mark-twice.jsonl": Case("sft", b"\xef\xbb\xbf" * 2 + demos(), "byte order mark", 0),
    "mark-inside.jsonl": Case("sft", demos() + b"\xef\xbb\xbf" + demos(), "byte order mark", 0),
    "utf16.jsonl": Case("sft", demos().decode().encode("utf-16"), "UTF-16"),
    "utf16.json": Case("sft", json.dumps([DEMO]).encode("utf-16-be"), "UTF-16"),
    "utf32.csv": Case("sft", "prompt,response\na,b\n".encode("utf-32"), "UTF-32"),
    "latin1.csv": Case("sft", "prompt,response\ncaf\u00e9,b\n".encode("latin-1"), "0xE9"),
    "shift-jis.jsonl": Case("sft", '{"prompt": "日本", "response": "a"}'.encode("shift-jis"), "not UTF-8"),
    "line-separator.jsonl": Case("sft", demos() + '{"prompt": "a\u2028b", "response": "c"}\n'.encode(), "5 x d", 0),
}

CHATS = {
    "two-answers.jsonl": Case("sft", chat(ASK, SAY, said(A, "More")), "two turns of the assistant in a row", 0),
    "two-users.jsonl": Case("sft", chat(ASK, said(U, "You?"), SAY), "two turns of the user in a row", 0),
    "no-user.jsonl": Case("sft", chat(SAY), "no turn of the user", 0),
    "system-middle.jsonl": Case("sft", chat(ASK, SAY, said(S, "Be kind"), ASK, SAY), "not the first", 0),
    "system-only.jsonl": Case("sft", chat(said(S, "Be kind")), "ends with role system"),
    "system-twice.jsonl": Case("sft", chat(said(S, "a"), said(S, "b"), ASK, SAY), "not the first", 0),
    "ends-with-user.jsonl": Case("sft", chat(ASK), "role user"),
    "empty-messages.jsonl": Case("sft", lines({"messages": []}), "messages"),
    "messages-text.jsonl": Case("sft", lines({"messages": "Hi there"}), "messages"),
    "messages-json-text.jsonl": Case("sft", lines({"messages": json.dumps([ASK, SAY])}), "stored as text", 0),
    "messages-null.jsonl": Case("sft", chat() + lines({"messages": None}), "messages"),
    "human-gpt.jsonl": Case(
        "sft", lines({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}), "1 x demo", 0
    ),
    "wizard.jsonl": Case("sft", chat(said("wizard", "a"), SAY), "wizard"),
    "role-case.jsonl": Case("sft", chat(said("User", "a"), said("ASSISTANT", "b")), "5 x demonstration", 0),
    "role-null.jsonl": Case("sft", chat(said(None, "a"), SAY), "role"),
    "role-number.jsonl": Case("sft", chat(said(1, "a"), SAY), "role"),
    "content-null.jsonl": Case("sft", chat(ASK, said(A, None)), "content"),
    "content-number.jsonl": Case("sft", chat(ASK, said(A, 4)), "found 4"),
    "content-parts.jsonl": Case("sft", chat(ASK, said(A, [{"type": "text", "text": "b"}])), "5 x demonstration", 0),
    "image.jsonl": Case(
        "sft", chat(said(U, [{"type": "image_url", "image_url": {"url": "x"}}]), SAY), "image_url"
    ),
    "image-column.jsonl": Case("sft", lines({**DEMO, "images": ["a.png"]}), "images", 0),
    "calls-of-user.jsonl": Case(
        "sft", chat(said(U, "a", tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]), SAY), "calls"
    ),
    "call-without-name.jsonl": Case("sft", chat(ASK, said(A, "", tool_calls=[{"id": "1"}])), "name"),
    "template-marks.jsonl": Case("sft", demos("Hello<|im_end|>", key="response"), "template", 0),
    "unknown-key.jsonl": Case("sft", chat(ASK, said(A, "b", mood="glad")), "mood", 0),
    "history-cut.jsonl": Case("sft", lines({**DEMO, "history": ["a"]}), "history"),
    "response-is-chat-of-user.jsonl": Case("sft", lines({"prompt": "a", "response": [ASK]}), "assistant"),
    "prompt-is-answer.jsonl": Case("grpo", lines({"prompt": [ASK, SAY]}), "ends with the assistant"),
}

SHAPES = {
    "indented.jsonl": Case("sft", json.dumps([DEMO] * 5, indent=2).encode(), "JSON, in spite of its name", 0),
    "indented-object.jsonl": Case("sft", json.dumps(DEMO, indent=2).encode(), "JSON, in spite of its name", 0),
    "indented-many.jsonl": Case(
        "sft", "\n".join(json.dumps({**DEMO, "id": str(i)}, indent=2) for i in range(9)).encode(), "one after another",
        0,
    ),
    "array-one-line.jsonl": Case("sft", json.dumps([DEMO] * 5).encode(), "JSON, in spite of its name", 0),
    "json.csv": Case("sft", json.dumps([DEMO] * 5).encode(), "JSON, in spite of its name", 0),
    "jsonl.csv": Case("sft", demos(), "JSON, in spite of its name", 0),
    "csv.jsonl": Case("sft", b"prompt,response\na,b\nc,d\n", "CSV"),
    "csv.json": Case("sft", b"prompt,response\na,b\nc,d\n", "CSV"),
    "parquet.jsonl": Case("sft", table([DEMO] * 5), "5 x demonstration", 0),
    "jsonl.parquet": Case("sft", demos(), "JSON", 0),
    "html.jsonl": Case("sft", b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "lfs.jsonl": Case(
        "sft", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "pointer"
    ),
    "splits.json": Case("sft", json.dumps({"train": [DEMO] * 4, "test": [DEMO]}).encode(), "not read: the", 0),
    "train-only.json": Case("sft", json.dumps({"train": [DEMO] * 4}).encode(), "under the field", 0),
    "columns.json": Case("sft", json.dumps({"prompt": ["a", "b"], "response": ["c", "d"]}).encode(), "column"),
    "pandas.json": Case("sft", json.dumps({"prompt": {"0": "a"}, "response": {"0": "b"}}).encode(), "column"),
    "split-frame.json": Case(
        "sft", json.dumps({"columns": ["prompt", "response"], "data": [["a", "b"]]}).encode(), "data"
    ),
    "list-of-lists.json": Case("sft", json.dumps([["prompt", "response"], ["a", "b"]]).encode(), "a list of 2"),
    "texts.json": Case("sft", b'["a", "b"]', "expected a JSON object"),
    "json5.json": Case("sft", b"[{prompt: 'a', response: 'b',},]", "broken JSON"),
    "trailing-comma.json": Case("sft", b'[{"prompt": "a", "response": "b"},]', "1 x demonstration", 0),
    "comments.json": Case("sft", b'// all\n[{"prompt": "a", "response": "b"}]', "no JSON"),
    "python.jsonl": Case("sft", b"{'prompt': 'a', 'response': None}\n", "broken JSON"),
    "concatenated.jsonl": Case("sft", b'{"prompt": "a", "response": "b"}{"prompt": "c"}\n', "after the end"),
    "half-written.jsonl": Case("sft", demos() + b'{"prompt": "Hi", "resp', ":5"),
    "half-written.csv": Case("sft", b'prompt,response\na,b\nc,"d', "broken CSV"),
    "mixed-schemas.jsonl": Case("sft", demos() + lines(PAIR, {"text": "a"}), "expected response"),
    "twice.jsonl": Case("sft", demos() + b'{"prompt": "a", "prompt": "b", "response": "c"}', "twice"),
    "nan.jsonl": Case("reward", demos() + b'{"prompt": "a", "response": "b", "reward": NaN}', "nan"),
    "infinity.jsonl": Case("reward", b'{"prompt": "a", "response": "b", "reward": -Infinity}', "-inf"),
    "nan-inside.jsonl": Case("sft", b'{"prompt": "a", "response": "b", "extra": [[NaN]]}', "nan"),
    "overflow.jsonl": Case("reward", b'{"prompt": "a", "response": "b", "reward": 1e999}', "inf"),
    "huge-int.jsonl": Case("reward", b'{"prompt": "a", "response": "b", "reward": %s}' % (b"9" * 5000), "digits"),
    "big-int.jsonl": Case("reward", b'{"prompt": "a", "response": "b", "reward": %s}' % (b"9" * 400), "bits"),
    "deep.jsonl": Case("sft", demos() + b"[" * 100_000, "nested too deep"),
    "deep-field.jsonl": Case(
        "sft", demos() + b'{"prompt":"a","response":"b","x":%s1%s}' % (b"[" * 900, b"]" * 900), "x", 0
    ),
    "blank-lines.jsonl": Case("sft", demos().replace(b"\n", b"\n\n \n"), "4 x demonstration", 0),
    "crlf.jsonl": Case("sft", demos().replace(b"\n", b"\r\n"), "4 x demonstration", 0),
    "cr.csv": Case("sft", b"prompt,response\ra,b\rc,d\r", "2 x demonstration", 0),
    "empty-object.jsonl": Case("sft", b"{}\n", "no known kind"),
    "empty-field-name.jsonl": Case("sft", demos() + lines({"": "x", **DEMO}), "fields not used", 0),
    "space-in-names.jsonl": Case("sft", lines({" Prompt ": "a", "Response": "b"}), "1 x demonstration", 0),
    "twin-names.jsonl": Case("sft", lines({"prompt": "a", "Prompt": "b", "response": "c"}), "not used: Prompt", 0),
}

TABLES = {
    "semicolons.csv": Case("sft", b"prompt;response\na;b\n", "semicolons", 0),
    "tabs.csv": Case("sft", b"prompt\tresponse\na\tb\n", "tabs", 0),
    "pipes.csv": Case("sft", b"prompt|response\na|b\n", "|"),
    "one-column-quoted.csv": Case("sft", b'"prompt,response"\n"a,b"\n', "prompt,response"),
    "ragged.csv": Case("sft", b"prompt,response\na,b\nc\n", "1 cells"),
    "trailing-commas.csv": Case("sft", b"prompt,response,\na,b,\n", "1 x demonstration", 0),
    "no-header.csv": Case("sft", b"What is up?,Nothing much.\nAnd you?,Fine.\n", "first line"),
    "single-quotes.csv": Case("sft", b"prompt,response\n'a, b','c'\n", "3 cells"),
    "open-quote.csv": Case("sft", b'prompt,response\na,"b\nc,d\n', "broken CSV"),
    "backslash-quote.csv": Case("sft", b'prompt,response\na,"say \\"b\\" now"\n', "broken CSV"),
    "column-twice.csv": Case("sft", b"prompt,prompt,response\na,b,c\n", "more than once"),
    "index-column.csv": Case("sft", b",prompt,response\n0,a,b\n1,c,d\n", "2 x demonstration", 0),
    "header-only.csv": Case("sft", b"prompt,response\n", "no rows"),
    "sep-line.csv": Case("sft", b"sep=;\nprompt;response\na;b\n", "sep="),
    "nul.csv": Case("sft", b"prompt,response\na\0b,c\n", "NUL"),
    "formula.csv": Case("sft", b"prompt,response\n'=1+1,b\n", "spreadsheet formulas", 0),
    "nan-cell.csv": Case("reward", b"prompt,response,reward\na,b,nan\n", "finite"),
    "comma-number.csv": Case("reward", b'prompt,response,reward\na,b,"0,5"\n', "0,5"),
    "na-cell.csv": Case("reward", b"prompt,response,reward\na,b,NA\n", "NA"),
    "repr.csv": Case("sft", b'messages\n"[{\'role\': \'user\', \'content\': \'a"\n', "list of messages"),
    "bytes.parquet": Case("sft", table(prompt=[b"a"], response=[b"b"]), "type bytes"),
    "dates.parquet": Case(
        "sft", table(prompt=pyarrow.array([0], pyarrow.timestamp("ns")), response=["b"]), "expected text"
    ),
    "decimal.parquet": Case(
        "reward", table(prompt=["a", "a"], response=["b", "c"], reward=pyarrow.array(["1.5", "2"]).cast(
            pyarrow.decimal128(6, 2))), "2 x rating", 0
    ),
    "dictionary.parquet": Case(
        "sft", table(prompt=pyarrow.array(["a", "a"]).dictionary_encode(), response=["b", "c"]), "2 x demo", 0
    ),
    "nulls.parquet": Case("sft", table(prompt=["a", None], response=["b", "c"]), "null"),
    "all-null.parquet": Case("sft", table(prompt=pyarrow.nulls(2), response=["b", "c"]), "prompt"),
    "struct.parquet": Case("sft", table([{"messages": [ASK, SAY]}] * 3), "3 x demonstration", 0),
    "map.parquet": Case(
        "sft", table(prompt=["a"], response=["b"], m=pyarrow.array(
            [[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()))), "m", 0
    ),
    "no-rows.parquet": Case("sft", table(prompt=pyarrow.array([], pyarrow.string())), "no rows"),
    "no-columns.parquet": Case("sft", table([]), "no rows"),
    "cut.parquet": Case("sft", table([DEMO])[:-20], "damaged Parquet"),
    "nan.parquet": Case("reward", table([{**RATED, "reward": float("nan")}]), "nan"),
}

VERDICTS = {
    "identical-pair.jsonl": Case("reward", pairs({**PAIR, "rejected": "good"}), "the same", 0),
    "all-identical.jsonl": Case("reward", lines(*[{**PAIR, "rejected": "good"}] * 4), "the same"),
    "all-identical-dpo.jsonl": Case("dpo", lines(*[{**PAIR, "rejected": "good"}] * 4), "the same"),
    "chosen-empty.jsonl": Case("dpo", pairs({**PAIR, "chosen": ""}), "empty response", 0),
    "chosen-null.jsonl": Case("dpo", pairs({**PAIR, "chosen": None}), "null"),
    "chosen-number.jsonl": Case("dpo", pairs({**PAIR, "chosen": 3}), "found 3"),
    "constant-ratings.jsonl": Case("reward", lines(*({**RATED, "response": f"r{i}", "reward": 3} for i in range(5))),
                                   "all 5 ratings are the same", 0, 65),
    "constant-labels.jsonl": Case("kto", lines(*({**RATED, "response": f"r{i}"} for i in range(5))), "are the same",
                                  0, 65),
    "ratings-null.jsonl": Case("reward", lines(*[{**RATED, "reward": None}] * 3), "in any row: reward", 0, 65),
    "some-ratings-null.jsonl": Case("reward", lines(RATED, {**RATED, "reward": None}), "reward"),
    "rating-text.jsonl": Case("reward", lines({**RATED, "reward": "7"}), "'7'"),
    "rating-bool.jsonl": Case("kto", lines({**RATED, "reward": True}), "true"),
    "label-text.jsonl": Case("kto", lines(DEMO | {"label": "maybe"}), "maybe"),
    "label-bool.jsonl": Case("kto", lines(*(DEMO | {"prompt": f"p{i}", "label": i < 2} for i in range(4))),
                             "4 x rating", 0),
    "label-two.jsonl": Case("kto", lines(*[DEMO | {"label": 2}] * 4), "label", 0, 65),
    "huge-rating.jsonl": Case("reward", lines(RATED, {**RATED, "response": "b", "reward": 1e308}), "1e+308"),
    "label-range.jsonl": Case("reward", lines(JUDGED | {"label": "C"}), "'C'"),
    "strength.jsonl": Case("reward", lines(JUDGED | {"strength": 7}), "found 7"),
    "strength-half.jsonl": Case("reward", lines(JUDGED | {"strength": 0.5}), "whole number"),
    "contradiction.jsonl": Case("reward", lines(JUDGED | {"strength": 2, "label": "a"}), "contradicts"),
    "all-ties.jsonl": Case("reward", lines(*[JUDGED | {"label": "tie"}] * 3), "majority", 0, 65),
    "margin.jsonl": Case("reward", lines(PAIR | {"margin": -1}), "swap"),
    "agreement.jsonl": Case("reward", lines(PAIR | {"agreement": 7}), "from 0 to 1"),
    "rank-ties.jsonl": Case("reward", lines(*[{**RANKED, "ranks": [1, 1, 2]}] * 4), "4 x ranking", 0),
    "rank-all-ties.jsonl": Case("reward", lines(*[{**RANKED, "ranks": [1, 1, 1]}] * 4), "the same rank"),
    "rank-gaps.jsonl": Case("reward", lines(*[{**RANKED, "ranks": [1, 4, 9]}] * 4), "4 x ranking", 0),
    "rank-zero.jsonl": Case("reward", lines({**RANKED, "ranks": [0, 1, 2]}), "count from 0", 0),
    "rank-short.jsonl": Case("reward", lines({**RANKED, "ranks": [1, 2]}), "2 ranks for 3"),
    "rank-text.jsonl": Case("reward", lines({**RANKED, "ranks": ["1", 2, 3]}), "'1'"),
    "one-response.jsonl": Case("reward", lines({"prompt": "a", "responses": ["x"], "ranks": [1]}), "expected 2 to 9"),
    "demos-for-reward.jsonl": Case("reward", demos(), "learns from comparisons", 0, 65),
    "prompts-for-sft.jsonl": Case("sft", lines(*({"prompt": f"a{i}"} for i in range(4))), "demonstration", 0, 65),
    "ratings-for-dpo.jsonl": Case("dpo", lines(*({**RATED, "response": f"r{i}"} for i in range(4))), "equal rating",
                                  0, 65),
    "conflicting.jsonl": Case("reward", pairs(PAIR, PAIR | {"chosen": "bad", "rejected": "good"}), "6 x preference", 0),
    "id-list.jsonl": Case("dpo", lines(PAIR | {"id": [1]}), "a list of 1"),
    "id-twice.jsonl": Case("dpo", pairs(PAIR | {"id": "x"}, PAIR | {"id": "x", "prompt": "b"}), "repeated ids", 0),
    "prompts-empty.jsonl": Case("grpo", lines({"prompt": "a"}, {"prompt": " "}), "empty prompt"),
    "prompts-twice.jsonl": Case("grpo", lines(*[{"prompt": "a"}] * 4), "same record again", 0, 65),
    "prompt-number.jsonl": Case("grpo", lines({"prompt": 5}), "found 5"),
    "judged-demos.jsonl": Case("judged", demos(), "demonstration", 0, 65),
    "items-empty.jsonl": Case("annotate", lines({"prompt": "", "responses": ["a", "b"]}), "without a word", 0),
    "items-one.jsonl": Case("annotate", lines({"prompt": "a", "responses": ["b"]}), "1 x comparison", 0),
    "items-nul.jsonl": Case("annotate", lines({"prompt": "a\0", "responses": ["a", "b"]}), "NUL"),
    "tree-cut.jsonl": Case("reward", lines(*TREE[1:]), "message that is missing"),
}

PLACES = {
    "empty.jsonl": Case("sft", b"", "no rows"),
    "empty.json": Case("sft", b"", "no rows"),
    "empty.parquet": Case("sft", b"", "empty"),
    "blank.jsonl": Case("sft", b"\n \r\n", "no rows"),
    "folder": Case("sft", _folder, "no data files"),
    "folder.jsonl": Case("sft", _folder, "no data files"),
    "two-kinds": Case("sft", _pair_of_files, "different kinds", 65, 0),
    "pipe.jsonl": Case("sft", os.mkfifo, "pipe"),
    "pipe-inside": Case("sft", _pipe_in_folder, "no data files"),
    "device.jsonl": Case("sft", _device, "device"),
    "link-nowhere.jsonl": Case("sft", _nowhere, "link"),
    "link-loop.jsonl": Case("sft", _loop, "link"),
    "archive.zip": Case("sft", zipped("a.jsonl", demos()), "zip"),
    "zip.jsonl": Case("sft", zipped("a.jsonl", demos()), "zip"),
    "xz.jsonl.xz": Case("sft", lzma.compress(demos()), "xz"),
    "xz.jsonl": Case("sft", lzma.compress(demos()), "xz"),
    "bzip2.jsonl.bz2": Case("sft", bz2.compress(demos()), "bzip2"),
    "zstd.jsonl.zst": Case("sft", b"\x28\xb5\x2f\xfd" + b"\0" * 20, "zstd"),
    "seven.7z": Case("sft", b"7z\xbc\xaf\x27\x1c" + b"\0" * 20, "7z"),
    "book.xlsx": Case("sft", zipped("xl/workbook.xml", b"<a/>"), "spreadsheet"),
    "base.sqlite": Case("sft", b"SQLite format 3\0" + b"\0" * 84, "database"),
    "weights.jsonl": Case("sft", b"\x80\x04\x95" + b"\0" * 20, "pickle"),
    "unknown.docx": Case("sft", b"hello", "unknown file type"),
    "gzip-named.jsonl.gz": Case("sft", demos(), "not gzipped", 0),
    "gzip-hidden.jsonl": Case("sft", gzip.compress(demos(), mtime=0), "gzip", 0),
    "gzip-twice.jsonl.gz": Case("sft", gzip.compress(gzip.compress(demos(), mtime=0), mtime=0), "gzip"),
    "gzip-cut.jsonl.gz": Case("sft", gzip.compress(demos() * 50, mtime=0)[:-12], "too early"),
    "gzip-garbage.jsonl.gz": Case("sft", b"\x1f\x8b" + b"x" * 40, "damaged"),
    "gzip-tail.jsonl.gz": Case("sft", gzip.compress(demos(), mtime=0) + b"tail", "damaged"),
    "tar.jsonl": Case("sft", b"a.jsonl" + b"\0" * 93 + b"0000644\0" + b"\0" * 149 + b"ustar\x0000" + b"\0" * 247,
                      "tar"),
}

CORPUS: dict[str, Case] = {**CHARACTERS, **CHATS, **SHAPES, **TABLES, **VERDICTS, **PLACES}


def put(case: Case, path: Path) -> Path:
    """The file of a case, in its place."""
    if isinstance(case.put, bytes):
        path.write_bytes(case.put)
    else:
        case.put(path)
    return path
