"""The project's own files agree with each other."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest


def canonical(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


@pytest.fixture(scope="module")
def pyproject(project_root: Path) -> dict[str, Any]:
    return tomllib.loads((project_root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def declared(pyproject: dict[str, Any]) -> list[str]:
    extras = pyproject["project"]["optional-dependencies"].values()
    return [
        canonical(requirement)
        for requirements in (pyproject["project"]["dependencies"], *extras)
        for requirement in requirements
    ]


@pytest.fixture(scope="module")
def pins(project_root: Path) -> dict[str, str]:
    lines = (project_root / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_every_declared_dependency_is_pinned(declared: list[str], pins: dict[str, str]) -> None:
    assert [name for name in declared if name not in pins] == []


def test_pins_are_canonical_sorted_and_fit_any_build(pins: dict[str, str]) -> None:
    assert list(pins) == sorted(pins)
    assert list(pins) == [canonical(name) for name in pins]
    assert not any("+" in version for version in pins.values())


def test_every_dependency_is_explained(project_root: Path, declared: list[str]) -> None:
    page = (project_root / "docs/decisions/dependencies.md").read_text()
    assert [name for name in declared if f"`{name}`" not in page] == []


def test_models_come_with_hashes(project_root: Path) -> None:
    text = (project_root / "requirements/models.txt").read_text()
    assert len(re.findall(r"^[a-z0-9-]+==\S+ \\$", text, re.MULTILINE)) == 2
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)) == 2


def test_makefile_lists_its_targets(project_root: Path) -> None:
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=project_root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    listed = [line.split()[1] for line in done.stdout.splitlines()]
    assert {"demo", "test", "test-slow", "lint", "bench", "docs"} <= set(listed)


def test_licence_is_whole_and_named_alike(project_root: Path, pyproject: dict[str, Any]) -> None:
    text = (project_root / "LICENSE").read_text()
    assert "Apache License" in text
    assert "APPENDIX: How to apply the Apache License" in text
    assert pyproject["project"]["license"] == "Apache-2.0"


def test_changelog_knows_the_version(project_root: Path, pyproject: dict[str, Any]) -> None:
    text = (project_root / "CHANGELOG.md").read_text()
    assert f"\n## {pyproject['project']['version']}" in text


def test_ci_calls_the_targets_that_a_developer_calls(project_root: Path) -> None:
    script = project_root / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert {"make lint", "make test"} <= set(script.read_text().splitlines())


def test_no_module_is_too_long(project_root: Path) -> None:
    lengths = {
        path.relative_to(project_root).as_posix(): len(path.read_text().splitlines())
        for path in (project_root / "src").rglob("*.py")
    }
    assert {path: length for path, length in lengths.items() if length > 450} == {}


def test_texts_name_no_private_place(project_root: Path) -> None:
    """Nothing that is published names a path of the machine that it was written on."""
    private = re.compile(r"(?<![\w.])/(?:work|farm|root|home|tmp)/[a-z]")
    found = [
        f"{path.relative_to(project_root)}:{number}"
        for folder in ("src", "docs", "configs", "tests", "benchmarks", "examples")
        for path in sorted((project_root / folder).rglob("*"))
        if path.suffix in {".py", ".md", ".json", ".toml", ".html"}
        and path != Path(__file__).resolve()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if private.search(line)
    ]
    assert found == []
