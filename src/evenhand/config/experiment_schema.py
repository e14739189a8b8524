"""An experiment's fields: phases, data sets, and how it decides.

Defaults are here and nowhere else. A phase's own fields are in :mod:`evenhand.config.schema`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evenhand.config import rules
from evenhand.config.schema import StrictModel, raise_broken
from evenhand.config.values import Columns, Crossings, FolderName, LabelMap, PhaseSource, Positive


class ColumnsConfig(StrictModel):
    """Which column holds what; a format that the readers recognise needs none of it."""

    text: str | None = Field(default=None, description="Column of the post.")
    label: str | None = Field(default=None, description="Column of the label.")
    group: Columns | None = Field(
        default=None, description="Column of the target group, or several."
    )
    group_separator: str | None = Field(
        default=None, min_length=1, description="What separates several groups in one cell."
    )
    id: str | None = Field(
        default=None, description="Column of the row's id; null: by name; empty: its position."
    )
    source: str | None = Field(
        default=None, description="Column of the corpus that a row comes from."
    )
    fine_label: str | None = Field(
        default=None, description="Column of the corpus's own finer label."
    )
    cluster: str | None = Field(
        default=None, description="Column of what makes rows dependent, a template for example."
    )

    def chosen(self) -> dict[str, str | list[str]]:
        """Return the columns that are set, as the readers take them.

        >>> ColumnsConfig(text="post", group=["g1", "g2"]).chosen()
        {'text': 'post', 'group': ['g1', 'g2']}
        """
        return self.model_dump(mode="json", exclude_none=True)


class StatedConfig(StrictModel):
    """Claims about a phase, to be checked."""

    trainable_parameters: Positive | None = Field(
        default=None, description="Trainable parameters, as claimed."
    )
    total_parameters: Positive | None = Field(
        default=None, description="All parameters, as claimed."
    )
    processes: Positive | None = Field(
        default=None,
        description="Processes that it is, or was, trained with; null: as in this run.",
    )


class PhaseEntry(StrictModel):
    """One phase of an experiment."""

    name: FolderName = Field(description="Name, used for its folder: letters, digits, _ and -.")
    hypothesis: str | None = Field(default=None, description="What this phase is to find out.")
    config: PhaseSource = Field(
        default_factory=dict, description="A phase's JSON file, or its keys written here."
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="Phase keys that replace those of config."
    )
    continue_from: str | None = Field(
        default=None, description="Earlier phase whose finished adapter this one starts from."
    )
    stated: StatedConfig = Field(
        default_factory=lambda: StatedConfig(),
        description="Figures that somebody claims of this phase; the audit checks them.",
    )


class SetEntry(StrictModel):
    """One data set of an experiment."""

    name: FolderName = Field(description="Name, used for its folder: letters, digits, _ and -.")
    role: Literal["train", "validation", "test", "production"] = Field(
        description="What it may be used for; only the chosen phase is run on production."
    )
    file: str = Field(
        min_length=1,
        description='Data file, looked for in data_dir first; or "starter:train", "starter:test", '
        '"starter:functional", ...: a part of the built-in corpus.',
    )
    within: str | None = Field(
        default=None, min_length=1, description="Keep only rows whose text this file has too."
    )
    without: tuple[str, ...] = Field(
        default=(), strict=False, description="Leave out rows whose text one of these files has."
    )
    without_groups: tuple[str, ...] = Field(
        default=(), strict=False, description="Leave out rows about one of these target groups."
    )
    format: Literal["unified", "chat", "hatecheck", "rows", "table"] | None = Field(
        default=None, description="Format of the file; null: recognised by content and extension."
    )
    columns: ColumnsConfig = Field(
        default_factory=ColumnsConfig, description="Columns that differ from the experiment's."
    )
    labels: LabelMap = Field(
        default_factory=dict, description="Label words that differ from the experiment's."
    )
    max_rows: Positive | None = Field(
        default=None, description="Use the first so many rows of the file; null: all."
    )


class PromptConfig(StrictModel):
    """The prompt of every phase that names none itself."""

    file: str | None = Field(
        default=None, description="Prompt file; null: the built-in short prompt."
    )
    strategy: str | None = Field(
        default=None, min_length=1, description="Strategy of the prompt file."
    )


class SelectionConfig(StrictModel):
    """How the best phase is chosen."""

    set: str = Field(description="Name of a set of role validation.")
    metric: Literal["f1", "accuracy", "roc_auc"] = Field(
        default="f1", description="The phase with the highest value is chosen."
    )


class ThresholdConfig(StrictModel):
    """How the chosen phase's decision threshold is tuned, on the set of the selection."""

    maximise: Literal["f1", "recall"] = Field(
        default="f1", description="What the allowed thresholds compete on."
    )
    max_group_fpr: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Highest false-positive rate of any group, by its upper bound; null: no limit.",
    )
    max_fpr_gap: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Highest excess of a group's FPR over the other rows; null: no limit.",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="How sure the limits are to hold on new rows."
    )


class GateConfig(StrictModel):
    """What the chosen phase must show on the production set."""

    criteria: str = Field(
        default="default",
        min_length=1,
        description='"default", "reference", or a file with criteria.',
    )


class AcceptanceConfig(StrictModel):
    """When a mitigation is accepted: every other phase is held against the control."""

    set: str = Field(description="Held-out set, of role test or validation, that it is judged on.")
    functional: str | None = Field(
        default=None,
        description="Set of functional cases whose identity and counter-speech cases must hold.",
    )
    groups: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        description="Groups whose FPR is to fall; null: every group.",
    )
    f1_margin: float = Field(
        default=0.03, gt=0, lt=1, description="Largest loss of F1 that is accepted."
    )
    group_margin: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Largest rise of a group's FPR, or another group's FNR, that is accepted.",
    )
    target_fnr_margin: float = Field(
        default=0.15,
        gt=0,
        lt=1,
        description="Largest rise of a targeted group's own FNR that is accepted.",
    )
    functional_margin: float = Field(
        default=0.15,
        gt=0,
        lt=1,
        description="Largest loss of accuracy on functional cases that is accepted.",
    )
    at_recall: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decide every run at the highest threshold that finds this share of the hate "
        "of fitted_on; null: as each was evaluated.",
    )
    fitted_on: str | None = Field(
        default=None,
        description="Set that the thresholds of at_recall are found on; null: the selection's.",
    )
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Level of every test.")


class ExperimentConfig(StrictModel):
    """Phases, data sets, and how the best phase is chosen."""

    name: FolderName = Field(description="Name, used for its folder: letters, digits, _ and -.")
    description: str | None = Field(default=None, description="What the experiment is for.")
    data_dir: str | None = Field(
        default=None,
        description="Folder in which relative data and prompt files are looked for first.",
    )
    defaults: dict[str, Any] = Field(
        default_factory=dict, description="Phase keys for phases that do not set them."
    )
    phases: tuple[PhaseEntry, ...] = Field(
        strict=False, min_length=1, description="What is trained, in order."
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] | None = Field(
        default=None,
        strict=False,
        min_length=1,
        description="Train every phase once with each seed, as PHASE-seedN; null: once.",
    )
    control: str | None = Field(
        default=None,
        description="Phase that all others are compared with; null: every pair is compared.",
    )
    acceptance: AcceptanceConfig | None = Field(
        default=None, description="When a mitigation is accepted; null: nothing is judged so."
    )
    sets: tuple[SetEntry, ...] = Field(
        strict=False, min_length=1, description="Data sets with their roles."
    )
    columns: ColumnsConfig = Field(
        default_factory=ColumnsConfig, description="Columns of the data sets."
    )
    labels: LabelMap = Field(
        default_factory=dict, description='The corpus\'s label words, each "hate" or "normal".'
    )
    on_bad_row: Literal["stop", "skip"] = Field(
        default="stop",
        description="Stop at rows that cannot be used, or count, list and skip them.",
    )
    prompt: PromptConfig = Field(
        default_factory=PromptConfig, description="The prompt of training and evaluation."
    )
    selection: SelectionConfig = Field(description="How the best phase is chosen.")
    baselines: bool = Field(
        default=True,
        description="Evaluate always-hate, always-normal and TF-IDF beside the phases.",
    )
    slices: Crossings = Field(
        default=(),
        description="Further columns, or crossings of columns, to slice evaluations by.",
    )
    threshold: ThresholdConfig | None = Field(
        default_factory=ThresholdConfig,
        description="Tuning of the decision threshold; null: it stays at 0.5.",
    )
    gate: GateConfig | None = Field(
        default_factory=GateConfig,
        description="Criteria for deployment, judged on the first production set; null: none.",
    )
    accept: dict[str, Annotated[str, Field(min_length=1)]] = Field(
        default_factory=dict,
        description="Audit findings that are accepted: check, or check:subject, and the reason.",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        raise_broken(rules.broken_experiment_rules(self.model_dump(mode="json")))
        return self
