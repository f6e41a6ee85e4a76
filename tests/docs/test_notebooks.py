"""The notebooks run from top to bottom, in a process of their own where a warning is an error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.models.files.saving import save_causal_lm
from plaudit.models.tiny import tiny_lm, tiny_tokenizer

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def script(notebook: Path) -> str:
    """The code of a notebook; what its last line of a cell is gets shown, as Jupyter does."""
    cells = [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    lines = ["import ast, sys", "shared = {'__name__': '__main__'}", "def cell(text):"]
    lines += [
        "    body = ast.parse(text).body",
        "    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None",
        "    exec(compile(ast.Module(body, []), 'cell', 'exec'), shared)",
        "    if last is not None:",
        "        value = eval(compile(ast.Expression(last.value), 'cell', 'eval'), shared)",
        "        print(value._repr_html_()[:40] if hasattr(value, '_repr_html_') else repr(value))",
    ]
    for each in cells:
        # What starts with % is Jupyter's, and installs Plaudit where it is missing.
        text = "".join(line.replace("%pip", "pass  #") for line in each["source"])
        lines.append(f"cell({text!r})")
    return "\n".join(lines)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs_in_its_short_form(notebook: Path, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(["which animal is the tallest question answer short great help you hope"], 300)
    save_causal_lm(tiny_lm("llama", tokenizer, hidden=16, layers=1), tmp_path / "tiny", tokenizer)
    environment = {
        **os.environ,
        "PLAUDIT_NOTEBOOK": "short", "PLAUDIT_MODEL": str(tmp_path / "tiny"), "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", script(notebook)], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "<iframe srcdoc=" in done.stdout
    assert "Warning" not in done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_kept_without_outputs_and_installs_in_colab(notebook: Path) -> None:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert "%pip install -q plaudit" in code[0]
    assert "Colab" in "".join(cells[0]["source"])
