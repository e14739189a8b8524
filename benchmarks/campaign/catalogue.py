"""Which experiments the campaign has, what each is for, and where its files lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
CONFIGS = PROJECT / "configs" / "experiments" / "campaign"
EXPERIMENTS = PROJECT / "experiments" / "campaign"
RECORD = PROJECT / "docs" / "results" / "campaign.json"
PAGE = PROJECT / "docs" / "results.md"
README = PROJECT / "README.md"

VALIDATION = "unified_val"
HELD_OUT = "held_out"
PRODUCTION = "production"
FUNCTIONAL = "functional"
HATECHECK = "hatecheck"
SETS = (VALIDATION, HELD_OUT, FUNCTIONAL, HATECHECK, PRODUCTION)

GROUP = "lgbtq"
"""The group whose false positives the reference ended with."""

RECALL_FLOOR = 0.75
F1_GOAL = 0.70

AIMS = (
    (PRODUCTION, "f1", None, "F1", ">=", 0.80),
    (PRODUCTION, "roc_auc", None, "ROC AUC", ">=", 0.90),
    (PRODUCTION, "fpr", GROUP, "LGBTQ+ FPR", "<=", 0.20),
    (PRODUCTION, "fnr", GROUP, "LGBTQ+ FNR", "<=", 0.25),
    (HATECHECK, "accuracy", None, "HateCheck sample: right", ">=", 0.80),
    (HATECHECK, "specificity", None, "HateCheck sample: cases without hate right", ">=", 0.65),
)
"""What the recommended model is held against: set, metric, group, in words, direction, value."""

AIMED_SETS = tuple(dict.fromkeys(aim[0] for aim in AIMS))
RECOMMENDED = "final_recommended"

NAMES = (
    "modules",
    "ranks",
    "continued",
    "mitigation",
    "mitigation_policy",
    "mitigation_corpus",
    "small_models",
    "recommended",
    "learning_curve",
    "final_smollm2",
    "final_minilm",
    "final_mpnet",
    "final_recommended",
)
FINALS = tuple(name for name in NAMES if name.startswith("final_"))


@dataclass(frozen=True)
class Place:
    """Where one experiment's file and folder are."""

    name: str
    config: Path
    folder: Path

    @property
    def command(self) -> str:
        """The command that makes the folder, from the project's root."""
        config = self.config.relative_to(PROJECT) if PROJECT in self.config.parents else self.config
        return f"evenhand run {config} --out experiments/campaign/{self.name}"


def places(configs: Path = CONFIGS, experiments: Path = EXPERIMENTS) -> tuple[Place, ...]:
    """Return the campaign's experiments whose files are there, in their order.

    A final model's file may be added beside the others as ``final_NAME.json``.
    """
    further = sorted(path.stem for path in configs.glob("final_*.json") if path.stem not in NAMES)
    return tuple(
        Place(name, configs / f"{name}.json", experiments / name)
        for name in (*NAMES, *further)
        if (configs / f"{name}.json").is_file()
    )
