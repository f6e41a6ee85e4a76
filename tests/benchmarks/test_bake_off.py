"""What the bake-off's page is made of: curves read at equal KL, intervals over seeds, differences paired by seed."""

import math
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def page():
    sys.path.insert(0, str(BENCHMARKS))
    import bake_off_page

    yield bake_off_page
    sys.path.remove(str(BENCHMARKS))


def points(*pairs):
    return [{"kl": kl, "gold": gold, "reward": 0.0, "length": 10.0, "distinct": 1.0} for kl, gold in pairs]


def test_gold_is_read_on_lines_over_the_square_root_of_kl(page):
    curve = points((0, 0.0), (1, 1.0), (9, 2.0))
    assert page.at_kl(curve, 0.25) == pytest.approx(0.5)
    assert page.at_kl(curve, 4.0) == pytest.approx(1.5)
    assert math.isnan(page.at_kl(curve, 9.01))


def test_the_first_crossing_counts(page):
    assert page.at_kl(points((0, 0.0), (4, 2.0), (1, 5.0), (4, 7.0)), 4.0) == 2.0


def test_interval_is_students_and_each_seed_is_shown(page):
    # sd 1.2910, /2 = 0.6455, times 3.182 = 2.0540
    assert page.interval([1.0, 2.0, 3.0, 4.0]) == pytest.approx((2.5, 2.0540), abs=1e-4)
    assert page.each([1.0, math.nan]) == "1.00 (1.00, -)"
    assert page.each([math.nan]) == "-"


def test_tables_replace_what_stood_between_the_marks(page, tmp_path):
    path, (first, last) = tmp_path / "page.md", page.MARKS
    path.write_text(f"before\n{first}\nold\n{last}\nafter\n")
    page.insert(path, "new")
    page.insert(path, "newer")
    assert path.read_text() == f"before\n{first}\n\nnewer\n\n{last}\nafter\n"
    (tmp_path / "other.md").write_text("no marks")
    with pytest.raises(ValueError, match="has no"):
        page.insert(tmp_path / "other.md", "new")


def test_differences_are_paired_by_seed(page):
    from bake_off_methods import METHODS

    methods = [m for m in METHODS if m.name in ("PPO", "GRPO", "best-of-n")]
    found, budget = [], page.BUDGETS[1]
    for world in (0.0, 10.0, -7.0):  # seeds differ by far more than the methods do
        one = {
            "PPO": points((0, world), (budget, world + 1.0)),
            "GRPO": points((0, world), (budget, world + 1.5)),
            "best-of-n": points((0, world), (1.84, world + 0.5)),
        }
        found.append({name: {"points": curve, "seconds": 1.0} for name, curve in one.items()})
    lines = page.tables(methods, found).splitlines()
    (grpo,) = [line for line in lines if line.startswith("| GRPO") and line.endswith("[+0.50, +0.50] |")]
    assert "+0.50 [+0.50, +0.50]" in grpo
    assert any(line.startswith("| best-of-n | 1.50 (0.50, 10.50, -6.50) | - | - | - |") for line in lines)


def test_a_method_that_was_not_run_on_a_seed_is_a_dash(page):
    from bake_off_methods import METHODS

    methods = [m for m in METHODS if m.name in ("PPO", "GRPO")]
    curve = {"points": points((0, 0.0), (page.BUDGETS[1], 1.0)), "seconds": 1.0}
    text = page.tables(methods, [{"PPO": curve, "GRPO": curve}, {"PPO": curve}])
    assert "| GRPO | 0.86 (0.86, -) | 1.00 (1.00, -) | - | +0.00 |" in text


def test_the_figure_has_a_panel_for_every_method(page, tmp_path):
    pytest.importorskip("matplotlib")
    from bake_off_methods import METHODS

    curve = {"points": points((0, 0.0), (4, 1.0)), "seconds": 1.0}
    page.draw(METHODS, [{m.name: curve for m in METHODS}] * 2, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert len(METHODS) == len(page.COLOURS) == len({m.slug for m in METHODS}) == 8
