"""Proof before the first request: the golden rows again, and the adapter switched off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from evenhand.core.records import Row
from evenhand.experiment.releasing.golden import Golden, golden_posts, silent
from evenhand.experiment.releasing.problems import ReleaseProblem
from evenhand.finetune.classifier import Classifier
from evenhand.finetune.processes import World
from evenhand.serve.service import Readiness

FLOAT32_TOLERANCE = 1e-3
LOW_PRECISION_TOLERANCE = 0.05


@dataclass(frozen=True)
class ClassifierScorer:
    """A classifier as the server calls it: p(hate) of texts, one call at a time.

    The texts are scored as they are; a long one costs no more than its tokenising, since the
    encoder cuts its tokens, and the server bounds its characters.
    """

    classifier: Classifier
    _lock: Lock = field(default_factory=Lock)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return p(hate), shape (n,)."""
        rows = [Row(id=str(number), text=text) for number, text in enumerate(texts)]
        with self._lock:
            return self.classifier.score(rows, world=World(), advance=silent)


@dataclass(frozen=True)
class Proof:
    """What the proof says, and what speaks against serving."""

    readiness: Readiness
    problems: tuple[ReleaseProblem, ...]


def tolerance_for(dtypes: Sequence[str]) -> float:
    """Return how far p(hate) may be from its offline value, by the number formats involved.

    >>> tolerance_for(["float32", "float32"]), tolerance_for(["float32", "bfloat16"])
    (0.001, 0.05)
    """
    return FLOAT32_TOLERANCE if set(dtypes) <= {"float32"} else LOW_PRECISION_TOLERANCE


def prove(
    classifier: Classifier,
    scorer: Callable[[Sequence[str]], np.ndarray],
    golden: Golden | None,
    *,
    place: str,
    tolerance: float | None = None,
) -> Proof:
    """Replay golden rows through the very function that will answer, with and without the adapter.

    Args:
        classifier: the loaded model.
        scorer: what the server will call.
        golden: the run's golden rows; None where there are none and the operator was told.
        place: the run, for messages.
        tolerance: how far p(hate) may be off; None: by the number formats.
    """
    posts = golden_posts() if golden is None else golden.posts
    formats = [classifier.device.dtype_name, *([] if golden is None else [golden.dtype])]
    allowed = tolerance_for(formats) if tolerance is None else tolerance
    served = scorer([row.text for row in posts])
    problems = []
    worst = 0.0
    if golden is not None:
        worst = float(np.abs(served - golden.scores).max())
        if not worst <= allowed:
            problems.append(_differs(golden, served, classifier, place, allowed))
    told, difference = "no adapter: the base model answers, with the run's prompt", None
    if classifier.config.tuning == "full":
        told = "no adapter: fully tuned weights, checked by their hash"
    if classifier.config.uses_adapter:
        with classifier.without_adapter() as bare:
            base = bare.score(posts, world=World(), advance=silent)
        difference = float(np.abs(served - base).max())
        told = (
            f"with the adapter switched off p(hate) of {len(posts)} posts changes by up to "
            f"{difference:.2g}"
        )
        if golden is not None:
            told += f"; with it on the offline scores are met to {worst:.2g}"
        if not difference > allowed:
            problems.append(_inert(place, difference, allowed))
        if golden is not None and not _is_near(base, golden.base_scores, allowed):
            problems.append(_base_differs(place, allowed))
    readiness = Readiness(
        golden_rows=0 if golden is None else len(golden.rows),
        golden_max_difference=worst,
        golden_tolerance=allowed,
        adapter_difference=difference,
        adapter_proof=told,
    )
    return Proof(readiness, tuple(problems))


def _is_near(found: np.ndarray, offline: np.ndarray, allowed: float) -> bool:
    return bool((np.abs(found - offline) <= allowed).all())


def _base_differs(place: str, allowed: float) -> ReleaseProblem:
    message = (
        "with the adapter switched off golden rows differ from the base model's offline p(hate) "
        f"by more than {allowed:g}"
    )
    remedy = "find out what changed: the base model, device, number format or library version"
    return ReleaseProblem("golden_differs", place, message, remedy)


def _differs(
    golden: Golden, served: np.ndarray, classifier: Classifier, place: str, allowed: float
) -> ReleaseProblem:
    difference = np.abs(served - golden.scores)
    at = int(np.nanargmax(np.where(np.isfinite(difference), difference, np.inf)))
    device = f"{classifier.device.name} {classifier.device.dtype_name}"
    message = (
        f"{int((~(difference <= allowed)).sum())} of {len(difference)} golden rows differ from "
        f"their offline p(hate) by more than {allowed:g}; {golden.rows[at].id}: "
        f"{golden.rows[at].score:.4f} offline ({golden.device} {golden.dtype}), "
        f"{served[at]:.4f} here ({device})"
    )
    remedy = "find out what changed: another model, device, number format or library version"
    return ReleaseProblem("golden_differs", place, message, remedy)


def _inert(place: str, difference: float, allowed: float) -> ReleaseProblem:
    message = (
        f"with the adapter switched off no golden row's p(hate) changes by more than {allowed:g} "
        f"(at most {difference:.2g}), so it cannot be told from the base model"
    )
    remedy = "train it, or serve a run with tuning none"
    return ReleaseProblem("adapter_inert", place, message, remedy)
