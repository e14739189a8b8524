from __future__ import annotations

import errno
import json
import math
import stat
from pathlib import Path
from typing import Any, NoReturn

import pytest

from evenhand.core import paths
from evenhand.core.errors import StorageError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_leaves_one_file_with_usual_permissions(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "config.json"
    paths.write_json(target, {"b": 1, "a": [math.nan, math.inf, 0.5]})
    assert names(target.parent) == ["config.json"]
    assert json.loads(target.read_text()) == {"b": 1, "a": [None, None, 0.5]}
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(target.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_failure_inside_the_block_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "gate.json"
    paths.write_text(target, "old")
    with pytest.raises(RuntimeError), paths.atomic_path(target) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["gate.json"]


def test_disk_full_is_a_storage_error_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "gate.json"
    paths.write_text(target, "old")

    def full(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(StorageError, match="No space left on device; earlier results"):
            paths.write_text(target, "new")
    assert target.read_text() == "old"
    assert names(tmp_path) == ["gate.json"]


def test_unwritable_place_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write") as caught:
        paths.write_text(tmp_path / "file" / "inside.json", "{}")
    assert "choose another folder" in caught.value.render()


def test_folder_is_swapped_whole(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    for content in ("first", "second"):
        with paths.atomic_dir(target) as staging:
            (staging / content).touch()
            (staging / "weights").write_text(content)
    assert names(tmp_path) == ["adapter"]
    assert names(target) == ["second", "weights"]


def test_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    with paths.atomic_dir(target) as staging:
        (staging / "weights").write_text("old")
    with pytest.raises(KeyboardInterrupt), paths.atomic_dir(target) as staging:
        (staging / "weights").write_text("half")
        raise KeyboardInterrupt
    assert (target / "weights").read_text() == "old"
    assert names(tmp_path) == ["adapter"]


@pytest.mark.parametrize("content", [None, "{", "\x00\xff"])
def test_damaged_json_names_the_file(tmp_path: Path, content: str | None) -> None:
    target = tmp_path / "manifest.json"
    if content is not None:
        target.write_bytes(content.encode("latin-1"))
    with pytest.raises(StorageError, match=r"cannot read .*manifest\.json"):
        paths.read_json(target)


def test_hash_of_json_ignores_the_order_of_keys() -> None:
    assert paths.sha256_json({"a": 1, "b": [2]}) == paths.sha256_json({"b": [2], "a": 1})
    assert paths.sha256_json({"a": 1}) != paths.sha256_json({"a": 2})


def test_hash_of_a_file_is_that_of_its_text(tmp_path: Path) -> None:
    (tmp_path / "post.txt").write_text("ordinary post\n", encoding="utf-8")
    assert paths.sha256_file(tmp_path / "post.txt") == paths.sha256_text("ordinary post\n")


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENHAND_CACHE", "chosen")
    assert paths.cache_dir() == Path("chosen")
    monkeypatch.delenv("EVENHAND_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    assert paths.cache_dir() == Path("cache/evenhand")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert paths.cache_dir() == Path.home() / ".cache" / "evenhand"
