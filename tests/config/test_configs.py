"""Every file in configs/ is one that its command takes."""

from pathlib import Path

import pytest

from plaudit.cli.main import main

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_resolves(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = path.stem.rpartition("_")[2]
    assert main(["config", command, str(path)]) == 0
    assert str(path) in capsys.readouterr().out


def test_there_are_configs() -> None:
    assert CONFIGS
