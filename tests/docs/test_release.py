"""What is published: one version, a README whose links lead somewhere, pages in the wheel, container files."""

import re
import tomllib
from pathlib import Path

import pytest
import release
import yaml
from pages import LINK

import plaudit
from plaudit.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert release.version_of(ROOT) == plaudit.__version__
    assert f"## {plaudit.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8"), "release notes of this version"


def test_links_of_the_package_page_are_absolute():
    text = release.absolute((ROOT / "README.md").read_text("utf-8"), "https://example.org/p", "v1")
    targets = [first or second for first, second in LINK.findall(text)]
    assert targets and all(re.match(r"https?:|#", target) for target in targets)
    assert "https://example.org/p/raw/v1/docs/images/report.png" in targets
    assert "https://example.org/p/blob/v1/docs/howto/rewards.md" in targets


def test_the_wheel_has_the_pages_that_help_points_to(tmp_path):
    for name in ("README.md", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), encoding="utf-8")
    for page in (ROOT / "docs").rglob("*.md"):
        copy = tmp_path / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(page.read_text("utf-8"), encoding="utf-8")
    release.prepare(tmp_path, "https://example.org/p", "1.0")
    named = {
        page
        for file in (ROOT / "src").rglob("*.py")
        for page in re.findall(r"docs/[\w/-]+\.md", file.read_text("utf-8"))
    }
    assert len(named) >= 5
    assert {page for page in named if not (tmp_path / "src/plaudit" / page).is_file()} == set()
    tomllib.loads((tmp_path / "pyproject.toml").read_text("utf-8"))


def test_every_extra_is_documented():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    page = (ROOT / "docs/howto/install.md").read_text("utf-8")
    assert {extra for extra in extras if f"`{extra}`" not in page} == set()


def test_the_container_file_copies_what_there_is_and_starts_a_command():
    lines = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    steps = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    words = {word for word, _ in steps}
    assert words <= {"FROM", "ARG", "RUN", "WORKDIR", "COPY", "USER", "VOLUME", "EXPOSE", "ENTRYPOINT", "CMD"}
    assert steps[0][0] == "FROM" and ":" in steps[0][1] and not steps[0][1].endswith(":latest")
    copied = [source for word, rest in steps if word == "COPY" for source in rest.split()[:-1]]
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert all((ROOT / source).exists() and source in allowed for source in copied)
    users = [rest for word, rest in steps if word == "USER"]
    assert users and users[-1] != "root"
    assert ["ENTRYPOINT", '["plaudit"]'] in steps


def test_the_services_are_a_database_and_the_app():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    app, database = services["app"], services["database"]
    command = app["command"].split()
    assert command[0] in COMMANDS and command[command.index("--db") + 1].startswith("postgresql://plaudit@database/")
    assert app["depends_on"]["database"]["condition"] == "service_healthy" and "healthcheck" in database
    assert all(port.startswith("127.0.0.1:") for port in app["ports"]), "not open to the network by itself"
    from plaudit.cli import annotate

    known = Path(annotate.__file__).read_text("utf-8")
    assert {flag for flag in command if flag.startswith("--") and f'"{flag}"' not in known} == set()


@pytest.mark.parametrize("name", ["bug.md", "idea.md"])
def test_issue_templates_have_what_the_page_of_issues_reads(name):
    text = (ROOT / ".github/ISSUE_TEMPLATE" / name).read_text("utf-8")
    head = yaml.safe_load(text.split("---")[1])
    assert head["name"] and head["about"]


def test_the_citation_can_be_read():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["authors"] and cited["license"] == "Apache-2.0"
