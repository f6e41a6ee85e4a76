"""Real data, where there is any beside the repository: counts that are known from their description."""

from __future__ import annotations

import pytest

from plaudit.data.lint import lint
from plaudit.data.load import load_records

FILES = {
    "preferences_hh_harmless.jsonl": ("preference", 1845, 1845),
    "hh_harmless_raw_400.jsonl.gz": ("preference", 400, 400),
    "rankings_oasst.jsonl": ("ranking", 159, 159),
    "judgements_pandalm.jsonl": ("judgement", 692, 2076),
    "demonstrations_human.jsonl": ("demonstration", 676, 676),
    "demonstrations_simple.jsonl": ("demonstration", 1100, 1100),
    "prompts.jsonl": ("prompt", 1758, 1758),
    "math_gsm8k.jsonl": ("prompt", 3737, 3737),
    "sentiment_uci.jsonl": ("rating", 2400, 2400),
}


@pytest.mark.parametrize("name", FILES)
def test_kind_and_counts(name, shared):
    loaded = load_records(str(shared / name))
    assert (loaded.kind, loaded.rows, len(loaded.records)) == FILES[name]
    assert len({record.id for record in loaded.records}) == len(loaded.records)


def test_raw_transcripts_and_messages_are_the_same_pairs(shared):
    raw = load_records(str(shared / "hh_harmless_raw_400.jsonl.gz")).records
    told = load_records(str(shared / "preferences_hh_harmless.jsonl")).records
    assert {(r.prompt, r.chosen, r.rejected) for r in raw} <= {(r.prompt, r.chosen, r.rejected) for r in told}


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("rankings_oasst.jsonl", 0.70),
        ("judgements_pandalm.jsonl", 0.67),
        ("hh_harmless_raw_400.jsonl.gz", 0.44),
    ],
)
def test_longer_wins_as_often_as_is_known(name, share, shared):
    (bias,) = [f for f in lint(load_records(str(shared / name)).records) if f.code == "length-bias"]
    assert bias.share == pytest.approx(share, abs=0.01)


def test_answers_are_kept(shared):
    loaded = load_records(str(shared / "math_gsm8k.jsonl"), limit=10)
    assert loaded.records[0].answer == "10" and all(r.answer for r in loaded.records)


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [("rankings_oasst.jsonl", "preference", 595), ("hh_harmless_raw_400.jsonl.gz", "prompt", 400)],
)
def test_conversions(name, kind, count, shared):
    assert len(load_records(str(shared / name), kind).records) == count
