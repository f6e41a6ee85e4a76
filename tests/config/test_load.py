"""Layers, provenance, and errors that say what, where and how to mend it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import Field

from plaudit.config.fields import find, settings
from plaudit.config.load import Layer, load_job, load_section
from plaudit.config.sections import Job, OptimizerSection, SamplingSection
from plaudit.errors import ConfigError
from plaudit.jobs.sft import SFTJob


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """An algorithm."""

    kl_coef: float = 0.05
    """Weight of the KL."""
    estimator: Literal["k1", "k3"] = "k1"
    """How it is estimated."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.kl_coef < 0:
            raise ConfigError(
                f"kl_coef is {self.kl_coef}", where="[algorithm] kl_coef", cure="make it positive"
            )

    def loss(self, batch: Any, out: Any) -> Any:
        return None


# As a built-in one.
Toy.__module__ = "plaudit.algorithms.toy"
sys.modules[Toy.__module__] = sys.modules[__name__]


class ToyJob(Job):
    """Train a toy."""

    policy: str
    """Model to train."""
    prompts_per_iteration: int = Field(32, ge=1)
    """Prompts in each batch."""
    every: int | Literal["auto"] = "auto"
    """Evaluate this often."""
    algorithm: Toy = Toy()
    optimizer: OptimizerSection = OptimizerSection(lr=1e-6)
    sampling: SamplingSection = SamplingSection()


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def fails(*args: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_job(ToyJob, *args)
    assert caught.value.where and caught.value.cure
    return caught.value


def test_files_win_over_defaults_later_files_over_earlier_and_flags_over_files(tmp_path: Path) -> None:
    one = write(
        tmp_path / "one.toml", 'policy = "a"\nseed = 1\n[optimizer]\nlr = 0.1\n\n[sampling]\ntop_k = 3\n'
    )
    two = write(tmp_path / "two.toml", "seed = 2\n[algorithm]\nkl_coef = 1\n")
    job, sources = load_job(ToyJob, [one, two], {"lr": "0.5"})
    assert (job.policy, job.seed, job.optimizer.lr, job.sampling.top_k) == ("a", 2, 0.5, 3)
    assert job.algorithm == Toy(kl_coef=1.0)
    assert sources["policy"] == f"{one}:1"
    assert sources["sampling.top_k"] == f"{one}:7"
    assert sources["seed"] == f"{two}:1"
    assert sources["algorithm.kl_coef"] == f"{two}:3"
    assert sources["optimizer.lr"] == "command line"
    assert sources["data.max_length"] == "default"


def test_a_partly_given_table_keeps_the_defaults_of_the_job(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", 'policy = "a"\n[optimizer]\nweight_decay = 0.1\n')
    assert load_job(ToyJob, [file]).job.optimizer == OptimizerSection(lr=1e-6, weight_decay=0.1)


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"lr": "1e-5"}, "optimizer.lr", 1e-5),
        ({"optimizer.lr": 1e-5}, "optimizer.lr", 1e-5),
        ({"optimizer-lr": "1e-5"}, "optimizer.lr", 1e-5),
        (["lr=1e-5"], "optimizer.lr", 1e-5),
        ({"batch-size": "16"}, "prompts_per_iteration", 16),
        ({"kl_coef": 0.1}, "algorithm.kl_coef", 0.1),
        ({"overwrite": "true"}, "overwrite", True),
        ({"stop": ["a", "b"]}, "sampling.stop", ("a", "b")),
        ({"targets": "q_proj,v_proj", "rank": "2"}, "lora.targets", ("q_proj", "v_proj")),
        ({"targets": "auto"}, "lora.targets", "auto"),
        ({"targets": '["a,b"]', "rank": "2"}, "lora.targets", ("a,b",)),
        ({"every": "auto"}, "every", "auto"),
        ({"every": "7"}, "every", 7),
        ({"out": "7"}, "out", "7"),
        ({"lr": "inf"}, "optimizer.lr", float("inf")),
    ],
)
def test_overrides(given: Any, key: str, value: Any) -> None:
    pairs = dict(given) if isinstance(given, dict) else given
    overrides = pairs | {"policy": "p"} if isinstance(pairs, dict) else [*pairs, "policy=p"]
    found: Any = load_job(ToyJob, (), overrides).job
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


def test_unknown_key_names_the_nearest_and_the_line(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.toml", 'policy = "a"\n[optimizer]\n\nlearning_rat = 0.1\nlrr = 1\n[sampling]\n'
    )
    assert fails([file]).where == f"{file}:4"
    file = write(tmp_path / "a.toml", "[sampling]\ntempurature = 1.0\n")
    error = fails([file])
    assert "sampling.tempurature" in error.what and error.cure == "did you mean sampling.temperature?"


def test_key_in_the_wrong_table_is_sent_to_the_right_one(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", 'policy = "a"\nlr = 0.1\n')
    assert fails([file]).cure == "did you mean optimizer.lr?"


def test_unknown_flag_names_the_nearest_flag() -> None:
    error = fails((), {"kl-cof": "1"})
    assert "--kl-cof" in error.what and error.cure == "did you mean --kl-coef?"
    assert error.exit_code == 78


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('lr = "1e-5"', "number > 0"),
        ("lr = -1.0", "number > 0"),
        ("lr = true", "number > 0"),
        ("warmup_fraction = 2", "number >= 0 and <= 1"),
        ('schedule = "cosin"', "cosine | linear | constant"),
        ("max_grad_norm = [1]", "number >= 0"),
    ],
)
def test_ill_typed_value_says_key_value_expected_and_line(tmp_path: Path, line: str, expected: str) -> None:
    file = write(tmp_path / "a.toml", f'policy = "a"\n[optimizer]\n{line}\n')
    error = fails([file])
    name, _, value = line.partition(" = ")
    assert f"optimizer.{name}" in error.what and f"expected {expected}" in error.what
    assert value.strip('"[]') in error.what
    assert error.where == f"{file}:3"


def test_integers_and_switches_are_strict(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", 'policy = "a"\nseed = 1.5\noverwrite = 1\n')
    error = fails([file])
    assert "seed = 1.5" in error.what or "overwrite = 1" in error.what
    assert "1 more" in error.what


def test_nearest_choice_is_named() -> None:
    assert "did you mean 'cosine'?" in fails((), {"policy": "a", "schedule": "cosin"}).cure


def test_missing_setting_says_how_to_give_it() -> None:
    error = fails(())
    assert "policy is not set: Model to train." in error.what and "--policy" in error.cure


def test_error_of_the_algorithm_itself_comes_through() -> None:
    assert fails((), {"policy": "a", "kl_coef": "-1"}).cure == "make it positive"


def test_table_given_as_a_value_and_value_given_as_a_table(tmp_path: Path) -> None:
    assert "is a table" in fails([write(tmp_path / "a.toml", "optimizer = 3\n")]).what
    error = fails([write(tmp_path / "b.toml", 'policy = "a"\n[seed]\nx = 1\n')])
    assert "seed" in error.what and error.where.endswith("b.toml:2")


@pytest.mark.parametrize(
    "text", ["policy = a\n", "policy = 'a'\n[optimizer\n", "seed = 1\nseed = 2\n", "\x00"]
)
def test_what_is_not_toml_names_the_line(tmp_path: Path, text: str) -> None:
    error = fails([write(tmp_path / "a.toml", text)])
    assert "TOML" in error.what and str(tmp_path / "a.toml") in error.where


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "ppo_small.toml", "")
    assert "ppo_small.toml" in fails([tmp_path / "ppo_smal.toml"]).cure


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes('policy = "é"'.encode("latin-1"))
    assert "UTF-8" in fails([path]).cure


def test_algorithm_type_must_fit_the_command(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", 'policy = "a"\n[algorithm]\ntype = "toy"\nkl_coef = 0.2\n')
    assert load_job(ToyJob, [file]).job.algorithm == Toy(kl_coef=0.2)
    error = fails([write(tmp_path / "b.toml", 'policy = "a"\n[algorithm]\ntype = "grpo"\n')])
    assert "'grpo'" in error.what and "'toy'" in error.what and error.where.endswith(":3")


CUSTOM = '''
from dataclasses import dataclass

@dataclass(frozen=True)
class Mine:
    """My own."""

    strength: float = 2.0
    """How strong."""
    needs = frozenset()

    def loss(self, batch, out):
        return None

class NotOne:
    pass
'''


@pytest.fixture
def custom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_own_algorithm.py").write_text(CUSTOM, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_own_algorithm", raising=False)
    return tmp_path


def test_custom_algorithm(custom: Path) -> None:
    file = write(
        custom / "a.toml", 'policy = "a"\n[algorithm]\ntype = "my_own_algorithm:Mine"\nstrength = 3\n'
    )
    job = load_job(ToyJob, [file]).job
    assert isinstance(job, ToyJob) and type(job.algorithm).__name__ == "Mine"
    assert vars(job.algorithm)["strength"] == 3.0
    text = '[algorithm]\ntype = "my_own_algorithm:Mine"\nkl_coef = 3\n'
    assert "algorithm.kl_coef" in fails([write(custom / "b.toml", text)]).what


@pytest.mark.parametrize("name", ["my_own_algorithm:NotOne", "my_own_algorithm:Nobody", "no_such_module:X"])
def test_custom_algorithm_that_is_none(custom: Path, name: str) -> None:
    error = fails([write(custom / "a.toml", f'policy = "a"\n[algorithm]\ntype = "{name}"\n')])
    assert name in error.what and error.where.endswith("a.toml:3")


def test_settings_are_described() -> None:
    table = {s.key: s for s in settings(ToyJob)}
    assert table["algorithm.kl_coef"].help == "Weight of the KL."
    assert table["algorithm.kl_coef"].flag == "--kl-coef"
    assert table["prompts_per_iteration"].expected == "integer >= 1"
    assert table["lora.targets"].expected == "list of text | auto"
    assert table["optimizer.lr"].default == 1e-6
    assert ["." in key for key in table] == sorted("." in key for key in table), "top-level keys come first"
    found = find("--batch-size", settings(ToyJob))
    assert found is not None and found.key == "prompts_per_iteration"


def test_name_in_two_tables_is_spelled_with_its_table() -> None:
    class Twice(ToyJob):
        """Two temperatures."""

        evaluation: SamplingSection = SamplingSection()
        temperature: float = 1.0

    flags = {s.key: s.flag for s in settings(Twice)}
    assert flags["sampling.temperature"] == "--sampling-temperature"
    assert flags["evaluation.temperature"] == "--evaluation-temperature"
    assert flags["temperature"] == "--temperature"


@pytest.mark.parametrize("given", [{"min_new_tokens": 9}, {"min_new_tokens": 200, "max_new_tokens": 199}])
def test_a_response_cannot_be_longer_than_its_longest(tmp_path: Path, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is above max_new_tokens") as error:
        load_job(SFTJob, (), {"max_new_tokens": 8} | given)
    assert error.value.where == "command line, --min-new-tokens"
    file = tmp_path / "run.toml"
    file.write_text("[sampling]\nmin_new_tokens = 300\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="300 is above max_new_tokens 64") as error:
        load_job(SFTJob, [file])
    assert error.value.where == f"{file}:2"
    assert load_job(SFTJob, (), {"min_new_tokens": 8, "max_new_tokens": 8}).job.sampling.cautions


@pytest.mark.parametrize("name", ["targets", "last_layers", "alpha"])
def test_what_is_about_adapters_needs_adapters(name: str) -> None:
    given = {"targets": "q_proj", "last_layers": "1", "alpha": "32"}[name]
    with pytest.raises(ConfigError, match="rank 0 means that there are none") as error:
        load_job(SFTJob, (), {name: given})
    assert "--rank" in error.value.cure
    assert load_job(SFTJob, (), {name: given, "rank": "4"}).job.lora.rank == 4


@pytest.mark.parametrize("given", [{"max_new_tokens": 0}, {"temperature": "hot"}, {"tempratur": 1.0}])
def test_a_table_by_itself_is_checked_like_that_of_a_job(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        load_section(SamplingSection, given)
    assert error.value.cure
    assert load_section(SamplingSection, {"top_k": 3, "stop": ["a"]}) == SamplingSection(top_k=3, stop=("a",))


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 3000 + "]" * 3000])
def test_values_that_python_cannot_read_are_no_toml(tmp_path: Path, value: str) -> None:
    (tmp_path / "a.toml").write_text(f"seed = {value}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid TOML"):
        Layer.read(tmp_path / "a.toml")
