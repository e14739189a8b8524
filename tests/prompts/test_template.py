from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenhand.core.errors import ConfigError
from evenhand.prompts.template import PromptTemplate, load_prompt, parse_strategy

ENTRY: dict[str, Any] = {"system_prompt": "Decide.", "user_template": "Post: {text}"}


def write(folder: Path, **strategies: Any) -> Path:
    path = folder / "prompts.json"
    path.write_text(json.dumps({"strategies": strategies}), encoding="utf-8")
    return path


def rendered_problems(path: Path, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_prompt(path, **options)
    return caught.value.render()


def test_built_in_prompt() -> None:
    prompt = load_prompt()
    assert prompt.origin == "built-in"
    assert (prompt.before, prompt.after) == ("Post: ", "")
    assert dict(prompt.labels) == {"hate": "hate", "normal": "normal"}


def test_strategy_is_chosen_by_name_or_is_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, one=ENTRY, two={**ENTRY, "system_prompt": "Other."})
    assert load_prompt(path).strategy == "one"
    assert load_prompt(path, strategy="two").system_prompt == "Other."
    assert load_prompt(path).origin == str(path)
    assert 'did you mean "two"?' in rendered_problems(path, strategy="tow")


def test_braces_are_doubled_as_in_str_format(tmp_path: Path) -> None:
    prompt = load_prompt(write(tmp_path, s={**ENTRY, "user_template": '{{"a": 1}} {text} {{}}'}))
    assert (prompt.before, prompt.after) == ('{"a": 1} ', " {}")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "is missing or not a string"),
        ("no place", "must have {text} exactly once, not 0 times"),
        ("{text} {text}", "must have {text} exactly once, not 2 times"),
        ("{text} {persona}", "unknown field {persona}"),
        ("{text!r}", "write {text} alone"),
        ("{text:>10}", "write {text} alone"),
        ("{text.upper}", "unknown field {text.upper}"),
        ("{}", "unknown field {}"),
        ('{"a": {text}', "unbalanced braces"),
        ("{text", "unbalanced braces"),
        ("text}", "unbalanced braces"),
    ],
)
def test_wrong_user_templates(tmp_path: Path, template: Any, message: str) -> None:
    path = write(tmp_path, s={"system_prompt": "", "user_template": template})
    text = rendered_problems(path)
    assert "strategies.s.user_template" in text
    assert message in text


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        s={
            "sytem_prompt": "x",
            "system_prompt": 3,
            "user_template": "none",
            "labels": {"hate": "", "norml": "x"},
            "parameters": {"max_tokens": 0, "temperature": "warm", "top_p": 2},
        },
    )
    with pytest.raises(ConfigError) as caught:
        load_prompt(path)
    assert [problem.place.removeprefix("strategies.s.") for problem in caught.value.problems] == [
        "sytem_prompt",
        "system_prompt",
        "user_template",
        "labels.norml",
        "labels.hate",
        "labels.normal",
        "parameters.max_tokens",
        "parameters.temperature",
        "parameters.top_p",
    ]
    assert 'did you mean "system_prompt"?' in caught.value.render()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "must be an object"),
        ({"hate": "x", "normal": "x"}, "both labels have the same string"),
        ({"hate": "x", "normal": 3}, "must be a string that is not empty"),
    ],
)
def test_wrong_labels(tmp_path: Path, labels: Any, message: str) -> None:
    assert message in rendered_problems(write(tmp_path, s={**ENTRY, "labels": labels}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is missing or empty"),
        ('{"strategies": {}}', "is missing or empty"),
        ('{"strategies": {"s": 3}}', "must be an object"),
        (b"\xff\xfe", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_files_that_are_no_prompt_files(
    tmp_path: Path, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / "prompts.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert message in rendered_problems(path)


def test_hash_covers_what_reaches_a_score_and_nothing_else() -> None:
    def sha256(**changes: Any) -> str:
        return parse_strategy({**ENTRY, **changes}, name="s", origin="here").sha256

    same = sha256()
    assert sha256(parameters={"temperature": 0.7}) == same
    assert sha256(description="else", name="else") == same
    assert parse_strategy(ENTRY, name="other", origin="there").sha256 == same
    assert sha256(system_prompt="Else.") != same
    assert sha256(user_template="Text: {text}") != same
    assert sha256(user_template="Post: {text} ") != same
    assert sha256(labels={"hate": "yes", "normal": "no"}) != same


@given(before=st.text(max_size=20), after=st.text(max_size=20), system=st.text(max_size=20))
def test_json_round_trip(before: str, after: str, system: str) -> None:
    prompt = PromptTemplate(strategy="s", system_prompt=system, before=before, after=after)
    document = json.loads(json.dumps(prompt.to_json()))
    again = parse_strategy(document["strategies"]["s"], name="s", origin="built-in")
    assert again == prompt


def test_reference_prompts_score_alike(shared_data: Path) -> None:
    path = shared_data / "prompts" / "baseline_v1.json"
    names = list(json.loads(path.read_text())["strategies"])
    prompts = [load_prompt(path, strategy=name) for name in names]
    assert len(prompts) == 6
    assert len({prompt.sha256 for prompt in prompts}) == 1
    assert len({json.dumps(dict(prompt.parameters)) for prompt in prompts}) == 6
