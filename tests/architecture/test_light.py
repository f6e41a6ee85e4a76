"""What must not load torch does not, and the configuration stays small."""

import subprocess
import sys
from pathlib import Path

import pytest

from plaudit.config.algorithm import specialise, types
from plaudit.config.fields import settings
from plaudit.jobs.registry import COMMANDS

ROOT = Path(__file__).parents[2]
MOST_IN_AN_ALGORITHM = 48  # PPO has the many switches of PPO-max; the others stay below 20
MOST_MODULES = 250
HEAVY = ("torch", "transformers", "pandas", "pyarrow", "matplotlib")


def run_python(code: str) -> str:
    """stdout of a fresh interpreter that can import the package."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r})\n{code}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def loaded_by(statement: str) -> list[str]:
    return run_python(
        f"{statement}\nprint(*(m for m in {HEAVY} if m in sys.modules), sep='\\n')"
    ).splitlines()


@pytest.mark.parametrize(
    "statement",
    [
        "import plaudit",
        "from plaudit import load_records, Prompt, ConfigError, load_job",
        "import plaudit.cli.main as m; m.main(['--help'])",
        "import plaudit.records, plaudit.runs.recorder, plaudit.loop.simulated",
        "import plaudit.annotate.commands, plaudit.annotate.asking",
    ],
)
def test_does_not_load_heavy_packages(statement: str) -> None:
    assert [line for line in loaded_by(statement) if line in HEAVY] == []


def test_the_check_notices_torch() -> None:
    assert "torch" in loaded_by("import torch")


def test_every_public_name_can_be_imported() -> None:
    import plaudit

    assert all(getattr(plaudit, name) is not None for name in plaudit.__all__)
    assert set(plaudit.__all__) <= set(dir(plaudit))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = plaudit.no_such_name


def test_help_loads_little() -> None:
    """Seconds would tell of the machine; tests/e2e/test_startup.py compares them with those of torch."""
    code = "import plaudit.cli.main as m; m.main(['--help']); print(len(sys.modules))"
    assert int(run_python(code).splitlines()[-1]) < MOST_MODULES


def test_an_algorithm_has_few_settings_and_its_own_only() -> None:
    for row in COMMANDS.values():
        for name in types(row.job):
            table = settings(specialise(row.job, name, ""))
            count = sum(s.section == "algorithm" for s in table)
            assert count <= MOST_IN_AN_ALGORITHM, f"{name} has {count} settings of its own"


def test_every_setting_is_explained_and_has_a_short_flag() -> None:
    for row in COMMANDS.values():
        table = settings(row.job)
        assert [s.key for s in table if len(s.help) < 10] == []
        assert [s.key for s in table if "." in s.name] == [], "the same name in two tables"
