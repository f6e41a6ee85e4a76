"""What is shown can be fed back and gives the same job."""

import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from plaudit.config.load import load_job
from plaudit.config.sections import Job, LoraSection
from plaudit.config.show import to_toml, toml_value


def test_shown_settings_give_the_same_job_again(tmp_path: Path) -> None:
    job, sources = load_job(
        Job, (), {"lr": "3e-5", "targets": "a,b", "rank": "2", "out": 'x "y" \\ z', "warmup_fraction": 0}
    )
    file = tmp_path / "config.toml"
    file.write_text(to_toml(job, sources), encoding="utf-8")
    again, where = load_job(Job, [file])
    assert again == job
    assert where["optimizer.lr"].startswith(str(file))


def test_every_value_has_its_source() -> None:
    job, sources = load_job(Job, (), {"lr": "3e-5"})
    lines = [line for line in to_toml(job, sources).splitlines() if " = " in line]
    assert all(" # " in line for line in lines)
    assert [line.split(" # ")[1] for line in lines if line.startswith("lr =")] == ["command line"]
    assert [line.split(" # ")[1] for line in lines if line.startswith("seed =")] == ["default"]


def test_without_sources_a_changed_value_is_told_from_a_default() -> None:
    lines = to_toml(Job(seed=3, lora=LoraSection(rank=8))).splitlines()
    marks = {line.split(" = ")[0]: line.split(" # ")[1] for line in lines if " # " in line}
    assert marks["seed"] == marks["rank"] == "set in Python"
    assert marks["alpha"] == marks["out"] == "default"


scalars = (
    st.none().map(lambda _: True) | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(values)
def test_any_value_round_trips_through_toml(value: object) -> None:
    back = tomllib.loads(f"v = {toml_value(value)}")["v"]
    assert repr(back) == repr(value)
