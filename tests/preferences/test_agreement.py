import math

import numpy as np
import pytest

from plaudit.preferences.agreement import (
    agreement,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
)
from plaudit.preferences.votes import Vote

# Fleiss (1971) as reprinted everywhere: 10 units, 14 raters, 5 categories; kappa 0.210.
FLEISS = [
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
]  # fmt: skip
N = math.nan
# Krippendorff (2011), example C: four observers, twelve units, with gaps.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
    [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
]


def random_labels(seed: int, annotators: int, units: int, missing: float = 0.0) -> np.ndarray:
    """Labels -2..2 that mostly agree."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(-2, 3, units)
    wrong = rng.random((annotators, units)) < 0.3
    values = np.where(wrong, rng.integers(-2, 3, (annotators, units)), truth).astype(float)
    values[rng.random(values.shape) < missing] = math.nan
    return values


def as_votes(values: np.ndarray) -> list[Vote]:
    return [
        Vote(f"u{u}", f"a{a}", float(values[a, u]))
        for u in range(values.shape[1])
        for a in range(values.shape[0])
        if not math.isnan(values[a, u])
    ]


# By hand and from the papers


def test_cohen_by_hand():
    # 50 proposals: both yes 20, both no 15, 5 and 10 apart. Observed .7, chance .5 -> kappa .4.
    first = [1] * 25 + [0] * 25
    second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa([1, 0], [0, 1]) == pytest.approx(-1.0)
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    assert math.isnan(cohen_kappa([], []))


def test_weighted_cohen_by_hand():
    # Confusion of labels 0,1,2: rows [1,1,0],[0,1,0],[0,0,1]; expected counts * 4: see the sums.
    first, second = [0, 0, 1, 2], [0, 1, 1, 2]
    # Linear: observed 1. Row sums 2,1,1; column sums 1,2,1: sum(w r c)/4 = (4+4 + 1+1 + 2+2)/4 -> 14/4... by cell:
    rows, columns = [2, 1, 1], [1, 2, 1]
    linear = sum(abs(i - j) * rows[i] * columns[j] for i in range(3) for j in range(3)) / 4
    quadratic = sum((i - j) ** 2 * rows[i] * columns[j] for i in range(3) for j in range(3)) / 4
    assert (linear, quadratic) == (3.5, 5.0)
    assert cohen_kappa(first, second, "linear") == pytest.approx(1 - 1 / 3.5)
    assert cohen_kappa(first, second, "quadratic") == pytest.approx(1 - 1 / 5.0)


def test_categories_that_do_not_occur_widen_the_distance():
    first, second = [-2, 2, 2], [2, 2, -2]
    narrow = cohen_kappa(first, second, "quadratic")
    wide = cohen_kappa(first, second, "quadratic", categories=(-2, -1, 0, 1, 2))
    assert narrow == pytest.approx(wide)  # one distance only: the scale cancels
    with pytest.raises(ValueError, match="label 2 is not among"):
        cohen_kappa(first, second, categories=(-2, 0))
    with pytest.raises(ValueError, match="equally long"):
        cohen_kappa([1], [1, 2])


def test_fleiss_paper():
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)
    with pytest.raises(ValueError, match="equally many"):
        fleiss_kappa([[2, 0], [3, 0]])


@pytest.mark.parametrize(("level", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorff_paper(level, expected):
    assert krippendorff_alpha(OBSERVERS, level) == pytest.approx(expected, abs=5e-4)


def test_alpha_of_no_pairs_or_one_label_is_undefined():
    assert math.isnan(krippendorff_alpha([[1, N], [N, 2]]))
    assert math.isnan(krippendorff_alpha([[1, 1], [1, 1]]))
    assert krippendorff_alpha([[1, 2], [1, 2]]) == pytest.approx(1.0)


def test_raw_agreement_by_hand():
    assert raw_agreement([[3, 0], [2, 1], [1, 0]]) == pytest.approx(
        (1 + 1 / 3) / 2
    )  # a lone label says nothing


# Against published libraries


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
@pytest.mark.parametrize("seed", range(4))
def test_cohen_is_scikit_learns(weights, seed):
    metrics = pytest.importorskip(
        "sklearn.metrics", reason="kappas are compared with scikit-learn: pip install 'plaudit[oracle]'"
    )
    first, second = random_labels(seed, 2, 60)
    expected = metrics.cohen_kappa_score(first, second, weights=None if weights == "none" else weights)
    assert cohen_kappa(first, second, weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_fleiss_is_statsmodels(seed):
    inter_rater = pytest.importorskip(
        "statsmodels.stats.inter_rater",
        reason="kappas are compared with statsmodels: pip install 'plaudit[oracle]'",
    )
    counts, _ = inter_rater.aggregate_raters(random_labels(seed, 5, 40).T.astype(int) + 2)
    assert fleiss_kappa(counts) == pytest.approx(inter_rater.fleiss_kappa(counts), abs=1e-12)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("seed", range(4))
def test_alpha_is_the_krippendorff_packages(level, seed):
    krippendorff = pytest.importorskip(
        "krippendorff", reason="alpha is compared with krippendorff: pip install 'plaudit[oracle]'"
    )
    values = random_labels(seed, 4, 50, missing=0.4)
    expected = krippendorff.alpha(values, level_of_measurement=level)
    assert krippendorff_alpha(values, level) == pytest.approx(expected, abs=1e-12)


# The report


def test_report_has_the_figures_of_the_functions():
    values = random_labels(0, 3, 80)
    report = agreement(as_votes(values), "ordinal", draws=300)
    assert (report.units, report.shared, report.annotators) == (80, 80, 3)
    assert report.alpha.value == pytest.approx(krippendorff_alpha(values, "ordinal"))
    counts = np.stack([(values == c).sum(0) for c in range(-2, 3)], 1)
    assert report.fleiss.value == pytest.approx(fleiss_kappa(counts))
    assert report.raw.value == pytest.approx(raw_agreement(counts))
    named = {(p.first, p.second): p.kappa for p in report.pairs}
    assert set(named) == {("a0", "a1"), ("a0", "a2"), ("a1", "a2")}
    assert named["a0", "a2"].value == pytest.approx(cohen_kappa(values[0], values[2], "quadratic"))
    for estimate in (report.alpha, report.fleiss, report.raw, *named.values()):
        assert estimate.low < estimate.value < estimate.high and estimate.n == 80


def test_vectorised_bootstrap_is_the_plain_one():
    values = random_labels(1, 3, 60, missing=0.2)
    report = agreement(as_votes(values), "interval", draws=2000)
    rng = np.random.default_rng(5)
    shared = values[:, (~np.isnan(values)).sum(0) >= 2]
    plain = [
        krippendorff_alpha(shared[:, rng.integers(shared.shape[1], size=shared.shape[1])], "interval")
        for _ in range(1000)
    ]
    assert report.alpha.interval == pytest.approx(tuple(np.quantile(plain, [0.025, 0.975])), abs=0.02)


@pytest.mark.slow
def test_the_interval_covers_the_truth_about_95_of_100_times():
    truth = krippendorff_alpha(random_labels(99, 3, 200_000))
    reports = [agreement(as_votes(random_labels(s, 3, 100)), seed=s, draws=400).alpha for s in range(200)]
    assert 0.90 <= np.mean([r.low <= truth <= r.high for r in reports]) <= 0.99


def test_units_with_another_number_of_labels_are_left_out_of_fleiss():
    votes = as_votes(random_labels(2, 3, 30))
    more = [*votes, Vote("lone", "a0", 1.0), Vote("two", "a0", 1.0), Vote("two", "a1", 1.0)]
    report = agreement(more, draws=50)
    assert (report.units, report.shared, report.fleiss.n) == (32, 31, 30)
    assert report.fleiss.value == agreement(votes, draws=50).fleiss.value


def test_a_second_vote_replaces_the_first():
    votes = [Vote("u", "a", 1.0), Vote("u", "b", 1.0), Vote("v", "a", 0.0), Vote("v", "b", 0.0)]
    assert agreement([Vote("u", "a", 0.0), *votes], draws=20).raw.value == 1.0


def test_nothing_to_report():
    for votes in ([], [Vote("u", "a", 1.0)]):
        report = agreement(votes)
        assert math.isnan(report.alpha.value) and math.isnan(report.fleiss.value) and report.pairs == ()
        assert "undefined" in str(report.raw)


# Labels of two responses: which one is stored first must not matter


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_agreement_on_pairs_does_not_depend_on_the_order_of_storage(level: str) -> None:
    values = random_labels(3, 4, 40, missing=0.2)
    values[:, :30] = np.abs(values[:, :30])  # most items have the better response second
    flip = np.where(np.random.default_rng(0).random(40) < 0.5, -1.0, 1.0)
    plain, turned = as_votes(values), as_votes(values * flip)
    one = agreement(plain, level, mirrored=True, draws=50)  # type: ignore[arg-type]
    other = agreement(turned, level, mirrored=True, draws=50)  # type: ignore[arg-type]
    for name in ("raw", "alpha", "fleiss"):
        assert getattr(one, name).value == pytest.approx(getattr(other, name).value, abs=1e-12), name
    assert [p.kappa.value for p in one.pairs] == pytest.approx([p.kappa.value for p in other.pairs], abs=1e-12)
    unlike = agreement(plain, level, draws=50).alpha.value, agreement(turned, level, draws=50).alpha.value  # type: ignore[arg-type]
    assert abs(unlike[0] - unlike[1]) > 0.02, "without it the order matters, so this test can fail"


def test_mirrored_agreement_by_hand() -> None:
    # Two people, four items, all stored with the better response second: they agree on three. Each label counts half
    # for its opposite, so both labels have a share of 1/2: chance .5, kappa (.75 - .5) / .5. Alpha: observed
    # disagreement 1/4, expected (8 * 8 - 2 * 4 * 4) / (8 * 7) = 4/7, so 1 - 7/16.
    votes = as_votes(np.array([[1, 1, 1, 1], [1, 1, 1, -1]], dtype=float))
    measured = agreement(votes, mirrored=True, draws=20)
    assert measured.raw.value == pytest.approx(0.75)
    assert measured.fleiss.value == pytest.approx(0.5) and measured.pairs[0].kappa.value == pytest.approx(0.5)
    assert measured.alpha.value == pytest.approx(1 - 7 / 16)
