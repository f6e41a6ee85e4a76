"""Build the wheel and the source archive: with the documentation inside, and a README whose links lead somewhere.

    python scripts/release.py --repository https://example.org/plaudit

Works on a copy of the committed files, so that nothing of the working tree gets in.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from pages import LINK, ROOT

PLACE = ROOT / "build" / "release"
PICTURES = (".png", ".svg", ".gif")


def absolute(text: str, repository: str, revision: str) -> str:
    """Relative links and pictures as addresses at a revision: a package page has no files beside its README."""

    def replaced(match: re.Match[str]) -> str:
        target = match[1] or match[2]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        view = "raw" if target.endswith(PICTURES) else "blob"
        return match[0].replace(f"({target})", f"({repository}/{view}/{revision}/{target})")

    return LINK.sub(replaced, text)


def prepare(place: Path, repository: str, version: str) -> None:
    """Make the copy ready: README, addresses of the project, the pages that `--help` and docstrings point to."""
    readme = place / "README.md"
    readme.write_text(absolute(readme.read_text("utf-8"), repository, f"v{version}"), encoding="utf-8")
    project = place / "pyproject.toml"
    urls = f'\n[project.urls]\nRepository = "{repository}"\nChangelog = "{repository}/blob/v{version}/CHANGELOG.md"\n'
    project.write_text(project.read_text("utf-8") + urls, encoding="utf-8")
    for page in (place / "docs").rglob("*.md"):
        target = place / "src" / "plaudit" / page.relative_to(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(page, target)


def version_of(root: Path) -> str:
    """The version, from the one place where it stands."""
    found = re.search(r'^__version__ = "(.+)"$', (root / "src/plaudit/__init__.py").read_text("utf-8"), re.MULTILINE)
    assert found is not None, "src/plaudit/__init__.py has no __version__"
    return found[1]


def main() -> int:
    """Build into dist/."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", required=True, metavar="URL", help="where the files can be looked at")
    given = parser.parse_args()
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    archive = PLACE.with_suffix(".tar")
    subprocess.run(["git", "archive", "--output", archive, "HEAD"], cwd=ROOT, check=True)
    with tarfile.open(archive) as files:
        files.extractall(PLACE, filter="data")
    prepare(PLACE, given.repository.rstrip("/"), version_of(ROOT))
    return subprocess.run([sys.executable, "-m", "build", "--outdir", ROOT / "dist", PLACE]).returncode


if __name__ == "__main__":
    sys.exit(main())
