"""How much memory a process may use: the machine's, or its control group's, in both versions of Linux."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from plaudit.machine import memory_limit


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def own(root: Path, *lines: str) -> Path:
    path = root.parent / "own"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_without_groups_it_is_the_machines(root: Path) -> None:
    limit = memory_limit(root, root / "nothing")
    assert limit.of == "this machine" and limit.total >= psutil.virtual_memory().total
    assert 0 < limit.free <= limit.total


def test_the_second_version(root: Path) -> None:
    stat = "anon 1\ninactive_file 100000"
    write(root / "a" / "b", memory__max="1000000", memory__current="600000", memory__stat=stat)
    limit = memory_limit(root, own(root, "0::/a/b"))
    assert (limit.total, limit.free) == (1_000_000, 500_000), "files that can be given back at once are free"
    assert "control group" in limit.of


def test_a_group_above_may_be_smaller(root: Path) -> None:
    write(root / "a", memory__max="500000", memory__current="100000")
    write(root / "a" / "b", memory__max="max", memory__current="100000")
    assert memory_limit(root, own(root, "0::/a/b")).free == 400_000


def test_the_first_version(root: Path) -> None:
    group = root / "memory" / "job"
    stat = "inactive_file 7\ntotal_inactive_file 50000"
    write(group, memory__limit_in_bytes="2000000", memory__usage_in_bytes="300000", memory__stat=stat)
    limit = memory_limit(root, own(root, "9:name=systemd:/", "4:memory:/job", "0::/"))
    assert (limit.total, limit.free) == (2_000_000, 1_750_000)


def test_no_limit_is_beyond_every_machine(root: Path) -> None:
    write(root / "memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="1")
    write(root, memory__max="nonsense")
    assert memory_limit(root, own(root, "4:memory:/")).of == "this machine"
