"""The files of examples/cluster that users copy: they parse, their flags exist, and their numbers fit together."""

from __future__ import annotations

import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from pages import ROOT

from plaudit.cli.config import read_job
from plaudit.config.fields import settings
from plaudit.jobs.registry import COMMANDS

FOLDER = ROOT / "examples" / "cluster"
FILES = sorted(path for path in FOLDER.iterdir() if path.is_file())
SCRIPTS = [path for path in FILES if path.suffix in (".sh", ".sbatch")]
PAGES = {
    "gpus.md": "one-node.sh", "slurm.md": "plaudit.sbatch", "kuberay.md": "kuberay.yaml", "cloud.md": "cloud-vm.sh",
}  # fmt: skip


def kuberay() -> tuple[dict[str, Any], dict[str, Any]]:
    volume, job = yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text(encoding="utf-8"))
    return volume, job["spec"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_shells_read_the_scripts(script: Any) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix != ".toml"], ids=lambda p: p.name)
def test_flags_of_the_command_exist(path: Any) -> None:
    text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
    text = re.sub(r"\n\s+--", " --", text)  # YAML folds lines
    known = {setting.flag for setting in settings(COMMANDS["grpo"].job)} | {"--backend", "--out", "--resume"}
    for line in re.findall(r"(?m)^[^#\n]*plaudit grpo [^\n]*", text):
        flags = set(re.findall(r"(?<![\w-])--[a-z-]+", line))
        assert flags and flags <= known, flags - known


def test_the_job_is_one() -> None:
    name, job, _ = read_job("config", [str(FOLDER / "job_grpo.toml")], [])
    assert name == "grpo"
    assert (job.compute.backend, job.compute.device) == ("ray", "cuda")
    assert set(tomllib.loads((FOLDER / "job_grpo.toml").read_text("utf-8"))) >= {"policy", "reward", "dataset"}


def test_numbers_of_the_pods_fit_together() -> None:
    volume, spec = kuberay()
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    inside = group["template"]["spec"]["containers"][0]["resources"]
    gpus = group["replicas"] * inside["limits"]["nvidia.com/gpu"]
    asked = {name: int(n) for name, n in re.findall(r"--(workers|generators) (\d+)", spec["entrypoint"])}
    assert sum(asked.values()) + 1 == gpus
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    pods = [spec["rayClusterSpec"]["headGroupSpec"], group]
    claims = {v["persistentVolumeClaim"]["claimName"] for pod in pods for v in pod["template"]["spec"]["volumes"][:1]}
    assert claims == {volume["metadata"]["name"]}
    for pod in pods:
        named = {v["name"] for v in pod["template"]["spec"]["volumes"]}
        assert {m["name"] for m in pod["template"]["spec"]["containers"][0]["volumeMounts"]} == named


def test_one_version_of_ray() -> None:
    pinned = re.search(r"(?m)^ray==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert pinned
    _, spec = kuberay()
    image = re.search(r"rayproject/ray:([\d.]+)", (FOLDER / "Dockerfile").read_text(encoding="utf-8"))
    assert image
    assert spec["rayClusterSpec"]["rayVersion"] == image[1] == pinned[1]


@pytest.mark.parametrize(("gpus", "split"), [(3, (1, 1)), (8, (5, 2)), (16, (11, 4))])
def test_the_scripts_split_gpus_without_a_rest(gpus: int, split: tuple[int, int], tmp_path: Any) -> None:
    fake = tmp_path / "plaudit"
    fake.write_text('#!/usr/bin/env bash\necho "$@"\n', encoding="utf-8")
    fake.chmod(0o755)
    done = subprocess.run(
        ["bash", str(FOLDER / "one-node.sh")], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "GPUS": str(gpus)},
    )  # fmt: skip
    workers, generators = (int(re.search(rf"--{n} (\d+)", done.stdout)[1]) for n in ("workers", "generators"))  # type: ignore[index]
    assert (workers, generators) == split
    assert workers + generators + 1 == gpus
    assert "--resume" not in done.stdout
    (tmp_path / "runs" / "one-node" / "checkpoints").mkdir(parents=True)
    again = subprocess.run(
        ["bash", str(FOLDER / "one-node.sh")], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "GPUS": str(gpus)},
    )  # fmt: skip
    assert "--resume" in again.stdout


def test_each_page_says_what_was_not_tried_and_names_its_files() -> None:
    for page, file in PAGES.items():
        text = (ROOT / "docs" / "howto" / page).read_text(encoding="utf-8")
        assert "Not tried here" in text.splitlines()[2]
        assert f"examples/cluster/{file}" in text
        assert "## When it is slow" in text
