from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evenhand.config.experiment_schema import ExperimentConfig, PhaseEntry, SetEntry
from evenhand.config.explain import documented, explain, json_schema, reference_page
from evenhand.config.schema import PhaseConfig
from evenhand.core.errors import ConfigError

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("model", [ExperimentConfig, PhaseConfig, PhaseEntry, SetEntry])
def test_everything_is_explained(model: Any) -> None:
    lines = explain().splitlines()
    for name, field in model.model_fields.items():
        assert any(line.startswith(f"{name}   ") for line in lines), name
        assert f"    {field.description}" in lines


@pytest.mark.parametrize(
    ("path", "start"),
    [
        ("lora_r", "lora_r   whole number (at least 1); default 8"),
        ("phases.lora_r", "lora_r   "),
        ("phases[1].lora_r", "lora_r   "),
        ("phases.0.overrides.lora_r", "lora_r   "),
        ("defaults.lora_r", "lora_r   "),
        ("phases.continue_from", "continue_from   text or null; default null"),
        ("sets.role", 'role   "train", "validation", "test" or "production"; required'),
        ("sets.columns.group", "group   "),
        ("selection.metric", 'metric   "f1", "accuracy" or "roc_auc"; default "f1"'),
        ("phases", "Each entry of phases\n\nname   "),
        ("columns", "columns, of the experiment or of one set\n\ntext   "),
    ],
)
def test_one_field_or_section(path: str, start: str) -> None:
    assert explain(path).startswith(start)


@pytest.mark.parametrize(("path", "nearest"), [("phases.lora_rr", "lora_r"), ("sest", "sets")])
def test_unknown_fields(path: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        explain(path)
    assert f'did you mean "{nearest}"?' in caught.value.render()


def test_a_field_inside_a_section_needs_no_path_where_it_is_the_only_one() -> None:
    assert explain("within") == explain("sets.within")
    with pytest.raises(ConfigError) as caught:
        explain("file")
    assert "ask for sets.file or prompt.file" in caught.value.render()


def test_records_of_fields() -> None:
    (doc,) = documented("lora_dropout")
    assert (doc.name, doc.takes, doc.default) == (
        "lora_dropout",
        "number (at least 0, below 1)",
        "0.0",
    )
    assert len(documented("phases")) == len(PhaseConfig.model_fields) + len(PhaseEntry.model_fields)


def test_schemas() -> None:
    phase, experiment = json_schema("phase"), json_schema("experiment")
    assert set(phase["properties"]) == set(PhaseConfig.model_fields)
    assert phase["additionalProperties"] is False
    assert set(experiment["properties"]) == set(ExperimentConfig.model_fields)
    assert set(experiment["required"]) == {"name", "phases", "sets", "selection"}
    assert experiment["properties"]["defaults"]["$ref"] == "#/$defs/PhaseConfig"
    assert set(references(experiment)) == {f"#/$defs/{name}" for name in experiment["$defs"]}


def test_schemas_take_the_short_forms() -> None:
    properties = json_schema("phase")["properties"]
    assert {"type": "string", "enum": ["tensorboard", "none"]} in properties["report_to"]["anyOf"]
    bare = [option["enum"] for option in properties["metric_for_best_model"]["anyOf"]]
    assert ["loss", "f1", "accuracy", "roc_auc"] in bare


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [found for item in value for found in references(item)]
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for item in value.values() for found in references(item)]
    return []


def test_the_page_of_fields_is_up_to_date() -> None:
    page = PROJECT / "docs/reference/configuration.md"
    assert page.read_text(encoding="utf-8") == reference_page(), (
        "python -m evenhand.config.explain > docs/reference/configuration.md writes it anew"
    )
