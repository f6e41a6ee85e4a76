"""The same files through the commands that train on them or ask about them, on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpus import CORPUS, put

from plaudit.cli.main import main

QUICK = ["--precision", "fp32", "--threads", "1", "--no-progress", "--no-tensorboard"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from plaudit.models.files.saving import save_causal_lm
    from plaudit.models.tiny import tiny_lm, tiny_tokenizer

    root = tmp_path_factory.mktemp("world")
    tokenizer = tiny_tokenizer(["say Hi word good bad Hello"], 64)
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1), root / "lm", tokenizer)
    (root / "reward.py").write_text("def length(response):\n    return float(len(response))\n", encoding="utf-8")
    (root / "kto.toml").write_text('[algorithm]\ntype = "kto"\n', encoding="utf-8")
    return root


def command(stage: str, world: Path, file: Path, out: Path) -> list[str]:
    """What a user types to train on such a file."""
    model, data = str(world / "lm"), ["--dataset", str(file)]
    if stage == "annotate":
        return ["annotate", "import", str(file), "--db", str(out.with_suffix(".db"))]
    if stage == "judged":
        return ["reward", "--model", model, *data, "--eval-fraction", "0.5", "--out", str(out), *QUICK]
    if stage == "grpo":
        rewarded = ["--reward", f"{world / 'reward.py'}:length", "--group-size", "2", "--max-new-tokens", "3"]
        short = ["--iterations", "1", "--prompts-per-iteration", "2"]
        return ["grpo", "--policy", model, *data, *rewarded, *short, "--out", str(out), *QUICK]
    name = ["dpo", str(world / "kto.toml")] if stage == "kto" else [stage]
    return [*name, "--model", model, *data, "--samples", "0", "--out", str(out), *QUICK]


@pytest.mark.parametrize("name", CORPUS)
def test_the_stage_says_it_too(name: str, world: Path, tmp_path: Path, capsys: Any) -> None:
    case = CORPUS[name]
    code = main(command(case.stage, world, put(case, tmp_path / name), tmp_path / "run"))
    out = capsys.readouterr()
    text = out.out + out.err
    assert "BUG" not in text and "Traceback" not in text
    assert code == (case.code if case.trains is None else case.trains), text
    if case.trains is None and " x " not in case.said:
        assert case.said in text, "a warning that is only in the check is lost on whoever trains at once"
    if code:
        assert "fix:" in text and name in text
