import json
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from plaudit.errors import DataError
from plaudit.evaluation import charts
from plaudit.evaluation.report import write_report

VOID = {"meta", "br", "hr", "img", "input", "link", "path", "use", "rect"}


class Page(HTMLParser):
    """Text and tags of a page; fails on tags that are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.ids, self.words = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words).replace("\u202f", " "))


def read(path):
    html = write_report(path).read_text(encoding="utf-8")
    return html, Page(html)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("sft", ["It learned to imitate.", "Held-out loss", "Before", "After", "optimizer.lr"]),
        (
            "reward",
            [
                "unseen pairs as the annotators did",
                "Length alone",
                "Kendall’s τ",
                "Accuracy by confidence",
            ],
        ),
        (
            "ppo",
            ["It got better.", "KL to the reference", "Stops by itself", "Explained variance", "finished"],
        ),
        ("quickstart", ["1 · Data", "2 · Fine-tuning", "3 · Reward model", "4 · PPO", "5 · Did it work?"]),
    ],
)
def test_each_kind_of_run_becomes_one_whole_page(tmp_path, synthetic, kind, words):
    html, page = read(synthetic[kind](tmp_path / kind))
    for word in words:
        assert word in page.text
    assert html.count("<svg") >= 3
    assert len(page.ids) == len(set(page.ids))
    # Self-contained: nothing is fetched, nothing runs.
    assert not re.search(r"https?://|//[a-z]|src=|<script|<link|@import|url\((?!#)", html)


def test_what_a_model_writes_is_text_and_never_markup(tmp_path, synthetic):
    hostile = '</p><script>alert(1)</script><img src=x onerror="alert(2)"> {{ 7 * 7 }} & "quoted"'
    run = synthetic["ppo"](tmp_path / "ppo")
    rows = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {"response": hostile, "prompt": hostile}
    (run / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = [{"step": s, "time": 1.76e9, "<b>x</b>": float(s)} for s in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (run / "config.toml").write_text('policy = "<script>alert(3)</script>"  # command line\n')
    _, page = read(run)
    assert "script" not in page.tags and "img" not in page.tags and "b" in page.tags
    assert hostile in " ".join(page.words)
    assert '"<script>alert(3)</script>"' in page.text and "<b>x</b>" in page.text


def test_chats_are_shown_turn_by_turn(tmp_path, synthetic):
    run = synthetic["ppo"](tmp_path / "ppo")
    prompt = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]
    (run / "samples.jsonl").write_text(json.dumps({"step": 0, "prompt": prompt, "response": "Hi."}) + "\n")
    assert "system: Be kind. user: Hello?" in read(run)[1].text


def test_a_run_that_has_only_begun_has_a_page(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("")
    assert "Nothing was trained yet." in read(run)[1].text


def test_the_page_of_a_run_is_the_same_each_time(tmp_path, synthetic):
    run = synthetic["reward"](tmp_path / "r")
    assert read(run)[0] == read(run)[0]


def test_a_directory_that_is_no_run_is_an_error_with_a_cure(tmp_path):
    with pytest.raises(DataError, match=r"not a run[\s\S]*fix"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="not a run"):
        write_report(tmp_path / "absent")


def test_charts_take_their_colours_from_the_page():
    svg = charts.line("A & <b>", [charts.Series(range(30), range(30))], x_label="step", bounds=(None, 25.0))
    assert 'aria-label="A &amp; &lt;b&gt;"' in svg and "var(--accent)" in svg and "healthy below 25" in svg
    assert not re.search(r"#[0-9a-f]{6}|font-family|<style|<metadata", svg)


@pytest.mark.parametrize(("lowest", "under"), [(-4.0, True), (0.0, False)])
def test_a_bound_is_named_where_the_healthy_curve_is_not(monkeypatch, lowest, under):
    """Under the bound if the axis reaches far enough below it; else above, for there is no room."""
    seen = []
    save = Figure.savefig

    def look(figure, *args, **options):
        seen.extend(figure.axes[0].texts)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", look)
    curve = charts.Series(range(30), [lowest] + [0.4] * 29)
    charts.line("value", [curve], x_label="step", bounds=(0.0, None))
    assert [text.get_va() for text in seen] == ["top" if under else "bottom"]


def test_a_curve_with_no_spread_or_huge_values_is_drawn():
    for values in ([0.0, 0.0], [1e9, 3e9], [-5.0, -5.0], [1e-7, 2e-7]):
        assert charts.line("x", [charts.Series([1, 2], values)], x_label="step").startswith("<svg")


def test_all_is_well_is_said_only_where_everything_was_looked_at(tmp_path, synthetic):
    _, page = read(synthetic["ppo"](tmp_path / "gold"))
    assert "No warning signs were found." in page.text and "Not checked" not in page.text
    _, page = read(synthetic["ppo"](tmp_path / "no-gold", gold=False))
    assert "No warning signs were found." not in page.text
    assert "No warning signs were found in what could be checked." in page.text
    assert "Not checked: whether the reward is being exploited (there is no gold reward: --gold)." in page.text
    run = synthetic["reward"](tmp_path / "reward")
    _, page = read(run)
    assert "whether it reads the prompt" in page.text.partition("Not checked: ")[2]
