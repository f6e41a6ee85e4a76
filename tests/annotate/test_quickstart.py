"""`plaudit quickstart --annotate` from end to end: a newcomer answers by keys in a real browser, and a model learns."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from annotating import DESKTOP, free_port

from plaudit.annotate.asking import SLUG
from plaudit.data.load import load_records
from plaudit.preferences.exporting import export
from plaudit.preferences.store import content, history, projects
from plaudit.preferences.store.engine import Store
from plaudit.records import Judgement, Preference

pytestmark = pytest.mark.browser
SMALL = """
import functools, sys
from plaudit.cli.main import main
from plaudit.demo import quickstart
quickstart.Scale = functools.partial(quickstart.Scale, demonstrations=300, sft_epochs=1, comparisons=120, prompts=48,
                                     iterations=2, prompts_per_iteration=8, eval_prompts=16, hidden=32)
sys.exit(main(sys.argv[1:]))
"""
ASKED = 20
PATIENCE = 900
"""Seconds for each half of the pipeline: ten times what an idle machine needs."""


def wait_for_page(port: int, process: Any) -> None:
    """Until the program serves it; the model that writes the reviews is trained first."""
    until = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, "the program ended before it asked anything"
        assert time.monotonic() < until, "nobody was asked"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.5)


def answer_all(page: Any) -> list[str]:
    """The longer review is better, by keys; returns how the items were called. The last one is skipped."""
    seen = []
    for number in range(ASKED):
        page.locator("#answer").wait_for()
        page.wait_for_load_state()
        seen.append(page.locator("#work").get_attribute("data-assignment"))
        if number == ASKED - 1:
            page.keyboard.press("s")
            page.keyboard.press("Enter")
        else:
            sizes = page.locator(".response .formatted").evaluate_all("e => e.map(x => x.textContent.length)")
            page.keyboard.press("2" if sizes[0] > sizes[1] else "4")
            page.keyboard.press("Enter")
        if number < ASKED - 1:
            page.wait_for_function(
                "b => document.querySelector('#work').dataset.assignment !== b", arg=seen[-1]
            )
    return seen


def test_a_newcomer_is_the_annotator(chromium: Any, tmp_path: Path) -> None:
    out, port = tmp_path / "run", free_port()
    command = [
        sys.executable,
        "-c",
        SMALL,
        "quickstart",
        "--annotate",
        "--port",
        str(port),
        "--out",
        str(out),
    ]
    env = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    with (tmp_path / "said.txt").open("w") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=env)
    context = chromium.new_context(viewport=DESKTOP, reduced_motion="reduce")
    context.set_default_timeout(300_000)
    try:
        page = context.new_page()
        wait_for_page(port, process)
        page.goto(f"http://127.0.0.1:{port}/p/{SLUG}/work")
        assert len(set(answer_all(page))) == ASKED
        code = process.wait(PATIENCE)
    finally:
        context.close()
        process.kill()
        process.wait()
    told = (tmp_path / "said.txt").read_text()
    assert code == 0, told
    assert "You are the annotator of 20 comparisons" in told and "19 comparisons are yours" in told
    check_what_was_learned(out, told)


def check_what_was_learned(out: Path, told: str) -> None:
    """The person's answers are among the preferences, word for word; the report tells of the runs that used them."""
    store = Store.open(out / "annotations.db")
    with store.read() as conn:
        project = projects.get_project(conn, SLUG)
        given = history.read_annotations(conn, project)
        items = {item.key: item for item in content.read_items(conn, project).values()}
    store.close()
    mine = [r for r in export("judgements", given, items).records if isinstance(r, Judgement)]
    assert len(mine) == ASKED - 1 and all(j.strength for j in mine)
    learned = {
        (str(p.prompt), str(p.chosen), str(p.rejected))
        for p in load_records(str(out / "data" / "preferences.jsonl")).records
        if isinstance(p, Preference)
    }
    for j in mine:
        two = (j.response_a, j.response_b) if j.strength < 0 else (j.response_b, j.response_a)
        assert (str(j.prompt), *map(str, two)) in learned
    page = (out / "report.html").read_text(encoding="utf-8")
    headline = told.rpartition("\n  kl ")[2].split("\n\n")[1].splitlines()[0]
    assert len(headline) > 10 and headline in page, "the console and the report say the same of what came out"
    assert f"{len(learned)} preferences" in page and "Did it work?" in page and "Reward model" in page
    assert str(out / "report.html") in told and "gold_difference" in told
