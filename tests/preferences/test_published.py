"""Agreement on 692 public judgements of three people (PandaLM), beside the libraries that others compute it with."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from plaudit.data.load import load_records
from plaudit.preferences.agreement import agreement
from plaudit.preferences.votes import Vote
from plaudit.records import Judgement

FILE = Path(__file__).parents[2].parent / "shared" / "data" / "judgements_pandalm.jsonl"
TEAM = ("annotator1", "annotator2", "annotator3")


@pytest.fixture(scope="module")
def votes() -> list[Vote]:
    if not FILE.is_file():
        pytest.skip(f"no {FILE.name} beside the repository")
    given = [j for j in load_records(str(FILE)).records if isinstance(j, Judgement)]
    return [Vote(j.id.removesuffix(f"/{j.annotator}"), j.annotator, float(j.strength)) for j in given]


@pytest.fixture(scope="module")
def table(votes: list[Vote]) -> np.ndarray:
    """Labels -1, 0, 1 by person and item."""
    said = {(v.unit, v.annotator): v.label for v in votes}
    units = list(dict.fromkeys(v.unit for v in votes))
    return np.array([[said[unit, name] for unit in units] for name in TEAM])


def test_every_judgement_is_there(table: np.ndarray) -> None:
    assert table.shape == (3, 692) and set(np.unique(table)) == {-1.0, 0.0, 1.0}


@pytest.mark.parametrize(("level", "weights"), [("nominal", None), ("ordinal", "quadratic")])
def test_pairwise_kappas_are_scikit_learns(votes, table, level, weights) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="pip install 'plaudit[oracle]'")
    found = {(p.first, p.second): p.kappa.value for p in agreement(votes, level, draws=20).pairs}
    for (i, one), (k, other) in combinations(enumerate(TEAM), 2):
        expected = metrics.cohen_kappa_score(table[i], table[k], weights=weights)
        assert found[one, other] == pytest.approx(expected, abs=1e-12)
        assert 0.85 < expected < 0.93, "nearly, not wholly, of one mind"


def test_fleiss_is_statsmodels(votes, table) -> None:
    rater = pytest.importorskip("statsmodels.stats.inter_rater", reason="pip install 'plaudit[oracle]'")
    counts, _ = rater.aggregate_raters(table.T.astype(int))
    assert agreement(votes, draws=20).fleiss.value == pytest.approx(rater.fleiss_kappa(counts), abs=1e-12)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_the_krippendorff_packages(votes, table, level) -> None:
    krippendorff = pytest.importorskip("krippendorff", reason="pip install 'plaudit[oracle]'")
    expected = krippendorff.alpha(table, level_of_measurement=level)
    assert agreement(votes, level, draws=20).alpha.value == pytest.approx(expected, abs=1e-12)
