"""Whatever the bytes, reading them ends in records or in a DataError."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import json
import pkgutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import plaudit.data
from plaudit.data.lint import lint
from plaudit.data.load import load_records
from plaudit.errors import DataError

NAMES = "id prompt response completion chosen rejected messages text label labels responses ranks reward axes".split()
NAMES += [
    "margin",
    "strength",
    "annotator",
    "agreement",
    "answer",
    "response_a",
    "response_b",
    "conversations",
]
HH = "\n\nHuman: a\n\nAssistant: b"
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["a", HH])
)
messages = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "x"]), "content": scalars})
values = st.recursive(
    scalars | st.lists(messages, max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)
rows = st.lists(st.dictionaries(st.sampled_from(NAMES), values, max_size=5), max_size=4)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
endings = st.sampled_from(["jsonl", "json", "csv", "parquet", "jsonl.gz", "csv.gz", "parquet.gz"])


def _read(path, data):
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        lint(load_records(str(path)).records)


@quick
@given(st.binary(max_size=200), endings)
def test_any_bytes(tmp_path, data, ending):
    _read(tmp_path / f"a.{ending}", data)


@quick
@given(rows)
def test_any_rows(tmp_path, given_rows):
    _read(tmp_path / "a.jsonl", "\n".join(json.dumps(row) for row in given_rows).encode())
    _read(tmp_path / "a.json", json.dumps(given_rows).encode())


@quick
@given(st.text(alphabet='ab,"\n\r\t;[]{}=\0é', max_size=80))
def test_any_csv(tmp_path, text):
    _read(tmp_path / "a.csv", ("prompt,response\n" + text).encode())
    _read(tmp_path / "b.csv", text.encode())


@pytest.mark.parametrize("name", sorted(m.name for m in pkgutil.iter_modules(plaudit.data.__path__)))
def test_examples_in_docstrings(name):
    assert doctest.testmod(importlib.import_module(f"plaudit.data.{name}")).failed == 0
