"""Plots: where things lie, and that names are text."""

import re

import pytest

pytest.importorskip("markupsafe", reason="the annotation app's packages: pip install 'plaudit[annotate]'")

from plaudit.annotate.pages.charts import NARROW, Dot, bars, dots, nice_ticks


@pytest.mark.parametrize("ends", [(0, 1), (-0.3, 1), (0, 25), (-1.32, 1.32), (0, 0.07), (0, 86_400)])
def test_ticks_are_round_even_and_hold_both_ends(ends: tuple[float, float]) -> None:
    ticks = nice_ticks(*ends)
    assert ticks[0] <= ends[0] + 1e-9 and ticks[-1] >= ends[1] - 1e-9 and 4 <= len(ticks) <= 9
    steps = {round(b - a, 9) for a, b in zip(ticks, ticks[1:], strict=False)}
    assert len(steps) == 1 and all(float(f"{t:.3g}") == pytest.approx(t) for t in ticks)


def test_a_dot_lies_between_its_ends_and_inside_the_plot() -> None:
    plot = str(dots([Dot("Ada", 0.5, 0.25, 0.75), Dot("a long name of a model, and another one", 2.0)], "t"))
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', plot)]
    whisker = re.search(r'x1="([\d.]+)"[^>]*x2="([\d.]+)"[^>]*whisker', plot)
    assert whisker and float(whisker[1]) < places[0] < float(whisker[2])
    assert places[0] < places[1] < NARROW, "what lies outside is put at the end"


def test_names_are_text_and_nothing_is_no_plot() -> None:
    assert "<b>" not in str(dots([Dot("<b>x", 1.0)], "t")) and "<b>" not in str(bars([("<b>", 1)], "t"))
    assert dots([Dot("x", float("nan"))], "t") == "" and bars([("x", 0)], "t") == ""
