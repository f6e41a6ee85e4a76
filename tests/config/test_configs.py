"""Every file in configs/, and every config of an example, is one that its command takes."""

from pathlib import Path

import pytest

from plaudit.cli.main import main

ROOT = Path(__file__).parents[2]
CONFIGS = sorted([*(ROOT / "configs").glob("*.toml"), *(ROOT / "examples").rglob("*.toml")])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_resolves(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = path.stem.rpartition("_")[2]
    assert main(["config", command, str(path)]) == 0
    assert str(path) in capsys.readouterr().out


def test_there_are_configs() -> None:
    assert {path.parent.name for path in CONFIGS} == {"configs", "calculator", "cluster"}
