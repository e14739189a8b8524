"""The types of single values, with the short forms that users may write."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}$"


def _refuse(message: str) -> PydanticCustomError:
    # pydantic formats {} in a message; the text is passed as context so that it stays verbatim.
    return PydanticCustomError("evenhand", "{message}", {"message": message})


def _whole_or_share(value: float) -> float:
    if value >= 1 and value != int(value):
        raise _refuse("must be a whole number of steps, or a share of all steps below 1")
    return int(value) if value >= 1 else value


def _module_names(value: Any) -> Any:
    if value == "all-linear":
        return value
    if isinstance(value, str):
        raise _refuse(f'must be a list such as ["{value}"], or the word "all-linear"')
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise _refuse('must be a list of module names, or the word "all-linear"')
    if not value:
        raise _refuse("must name at least one module")
    return tuple(value)


def _one_or_several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _prefixed_metric(value: Any) -> Any:
    is_bare = isinstance(value, str) and not value.startswith("eval_")
    return f"eval_{value}" if is_bare else value


def _strings(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise _refuse("must be a column name or a list of column names")
    if not value:
        raise _refuse("must name at least one column")
    return tuple(value)


def _crossings(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _refuse(
            'must be a list of columns or of lists of columns: ["source", ["group", "a"]]'
        )
    return tuple(_strings(item) if not isinstance(item, str) else (item,) for item in value)


def _file_or_keys(value: Any) -> Any:
    if not isinstance(value, (str, dict)):
        raise _refuse("must be a file name, or an object with a phase's keys")
    return value


Steps = Annotated[float, Field(gt=0), AfterValidator(_whole_or_share)]
WarmupSteps = Annotated[float, Field(ge=0), AfterValidator(_whole_or_share)]
Modules = Annotated[tuple[str, ...] | Literal["all-linear"], BeforeValidator(_module_names)]
Logger = Literal["tensorboard", "none"]
Loggers = Annotated[
    tuple[Logger, ...],
    Field(strict=False),
    BeforeValidator(_one_or_several, json_schema_input_type=Logger | tuple[Logger, ...]),
]
FullMetric = Literal["eval_loss", "eval_f1", "eval_accuracy", "eval_roc_auc"]
BareMetric = Literal["loss", "f1", "accuracy", "roc_auc"]
Metric = Annotated[
    FullMetric,
    BeforeValidator(_prefixed_metric, json_schema_input_type=FullMetric | BareMetric),
]
Columns = Annotated[str | tuple[str, ...], BeforeValidator(_strings)]
Crossings = Annotated[
    tuple[tuple[str, ...], ...],
    BeforeValidator(_crossings, json_schema_input_type=list[str | list[str]]),
]
FolderName = Annotated[str, Field(pattern=FOLDER_NAME)]
Positive = Annotated[int, Field(ge=1)]
LabelMap = dict[str, Literal["hate", "normal"]]
LabelPolicy = dict[str, Literal["hate", "normal", "drop"]]
AugmentMethod = Literal["templates", "swaps", "corpus"]
Moment = Literal["epoch", "steps", "no"]
PhaseSource = Annotated[str | dict[str, Any], BeforeValidator(_file_or_keys)]
