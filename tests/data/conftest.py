"""Files to read, and a small tokenizer to read them with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture
def shared() -> Path:
    """The directory of real data, where there is one."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data beside the repository ({SHARED.name} is absent)")
    return SHARED


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[..., str]:
    """Writes rows as JSONL and gives the path."""

    def write(*rows: Any, name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write
