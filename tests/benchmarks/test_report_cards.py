"""The study of report cards on real data: one short member of it, and the page is that of the saved figures."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def study():
    sys.path.insert(0, str(ROOT / "scripts"))
    import report_cards

    yield report_cards
    sys.path.remove(str(ROOT / "scripts"))


def test_every_row_is_judged_by_models_that_have_not_seen_its_prompt(study, tmp_path):
    from plaudit.models.tiny import tiny_lm, tiny_tokenizer

    words = ("red", "blue", "good", "bad", "warm", "cold")
    tokenizer = tiny_tokenizer([f"say {a} {b} {c}" for a in words for b in words for c in words], chat=True)
    tiny_lm("llama", tokenizer, hidden=16, layers=9).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    rows = [
        {"prompt": [{"role": "user", "content": f"say {a} {b}"}], "responses": ["good good", "warm", "bad bad"]}
        | {"ranks": [0, 1, 2], "source": a}
        for a in words for b in words
    ]  # fmt: skip
    (tmp_path / "rankings_oasst.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--data", tmp_path, "--sets", "oasst", "--folds", 2, "--model", tmp_path / "lm", "--threads", 1]
    arguments += ["--keep", tmp_path / "keep", "--save", tmp_path / "saved.json"]
    assert study.main([str(each) for each in arguments]) == 0
    found = json.loads((tmp_path / "saved.json").read_text())["oasst"]
    card = found["card"]
    assert card["heldout_prompts"] == 36 and card["heldout_pairs"] == 108, "all rows, each once"
    assert card["words_baseline_accuracy"] == 1.0 and card["best_of_k_lists"] == 36
    assert len(card["accuracy_by_category"]) == 6 and found["folds"] == "2 of 2" and len(found["costs"]) == 2
    for fold in range(2):
        place = tmp_path / "keep" / "oasst" / f"fold-{fold}"
        train, judged = (
            {json.loads(line)["prompt"][0]["content"] for line in (place / f"{name}.jsonl").read_text().splitlines()}
            for name in ("train", "judged")
        )
        assert train and judged and not train & judged
    from report_cards_page import page

    text = page({"oasst": found})
    assert "OpenAssistant rankings" in text and "108 (36)" in text and "after another prompt" in text


def test_the_page_is_that_of_the_saved_figures(study):
    from report_cards_page import page

    assert study.PAGE.read_text(encoding="utf-8") == page(json.loads(study.SAVED.read_text(encoding="utf-8")))
