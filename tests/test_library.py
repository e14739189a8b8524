from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import evenhand


def test_surface_is_small_sorted_and_complete() -> None:
    assert len(evenhand.__all__) <= 25
    assert evenhand.__all__ == sorted(evenhand.__all__)
    assert dir(evenhand) == evenhand.__all__


@pytest.mark.parametrize("name", evenhand.__all__)
def test_every_name_loads_and_is_documented(name: str) -> None:
    found = getattr(evenhand, name)
    assert inspect.getdoc(found)
    assert found.__module__.startswith("evenhand.")
    page = (Path(__file__).parents[1] / "docs" / "library.md").read_text("utf-8")
    assert f"`{name}`" in page


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(evenhand.__file__).read_text("utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == evenhand.__all__
    for name, module in seen.items():
        assert getattr(importlib.import_module(str(module)), name) is getattr(evenhand, name)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="evaluat"):
        getattr(evenhand, "evaluat")  # noqa: B009


def test_import_is_light() -> None:
    code = "import evenhand, sys; print(sorted({'torch','pandas','numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
