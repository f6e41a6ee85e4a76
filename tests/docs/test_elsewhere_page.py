"""The page of names of other tools: each is understood or answered, TRL's are TRL's, rows are read as it says."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path

import elsewhere
import pytest

import plaudit
from plaudit.config.foreign import ALIASES, REASONS

GUIDES = {
    "reward_model_name_or_path", "reward_funcs", "rloo_k", "clip_range", "max_seq_length", "max_seq_len", "value_model",
    "torch_dtype", "logging_dir", "sft_model", "max_prompt_length", "ppo_max_token_len_per_gpu", "wandb_group",
    "colocate_all_models", "adam_beta1", "adam_beta2", "vllm_gpu_memory_utilization",
}  # fmt: skip
"""Names of guides and of versions between those that the page is about."""


@pytest.mark.parametrize("tool", elsewhere.TOOLS)
def test_every_name_of_a_tool_is_understood_or_answered(tool: str) -> None:
    assert [name for name in elsewhere.names_of(tool) if not any(elsewhere.meaning(name))] == []


def test_every_name_that_is_known_stands_on_the_page() -> None:
    listed = {name for tool in elsewhere.TOOLS for name in elsewhere.names_of(tool)}
    last = {name.rpartition(".")[2] for name in listed}
    assert (ALIASES.keys() | REASONS.keys()) - listed - last == GUIDES


def test_names_of_trl_are_fields_of_its_configs() -> None:
    spec = importlib.util.find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("TRL is not there: pip install 'plaudit[oracle]'")
    from transformers import TrainingArguments

    root = Path(spec.submodule_search_locations[0])
    fields = set(TrainingArguments.__dataclass_fields__)
    for file in [*root.rglob("*_config.py"), root / "scripts" / "utils.py"]:
        classes = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ClassDef)]
        fields |= {f.target.id for c in classes for f in c.body
                   if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)}  # fmt: skip
    assert [name for name in elsewhere.names_of("TRL 1.12") if name not in fields] == []


@pytest.mark.parametrize(("tool", "layout", "row", "kind"), elsewhere.DATA)
def test_a_row_of_another_tool_is_read_as_the_page_says(
    tool: str, layout: str, row: str, kind: str, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    json.loads(row)
    file.write_text(row + "\n", encoding="utf-8")
    (record,) = plaudit.load_records(file).records
    assert type(record).__name__.lower() == kind


def test_a_dotted_name_works_or_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    from plaudit.cli.main import main

    assert main(["ppo", "--algorithm.kl_ctrl.target_kl", "6"]) == 78
    assert "--kl-target, in nats per response" in capsys.readouterr().err
