"""The promises of the monitor's statistics, on simulated production whose truth is known.

A short form of ``benchmarks/monitoring_simulation.py``, which measures the same on more lives.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binom

LIVES = 30
POSTS = 4000


@pytest.fixture(scope="module")
def simulation() -> Iterator[ModuleType]:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("monitoring_simulation")


def most(share: float, lives: int) -> float:
    """The largest share that chance alone gives one time in a thousand."""
    return float(binom.ppf(0.999, lives, share)) / lives


@pytest.mark.parametrize("kind", ["plans by traffic", "spiteful plans", "late labels"])
def test_coverage_over_the_whole_life(simulation: ModuleType, kind: str) -> None:
    found = simulation.coverage(simulation.World(), lives=LIVES, posts=POSTS, seed=1, kind=kind)
    assert max(found["ever missed"].values()) <= most(0.05, LIVES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plans by traffic", "spiteful plans", "late labels"])
def test_coverage_over_long_lives(simulation: ModuleType, kind: str) -> None:
    worst = {"lgbtq": 0.5, "mexican": 0.05, "middle_east": 0.02, "none": 0.3}
    world = simulation.World(fpr=worst, found=0.5, mistaken=0.1, labels_per_day=100.0)
    found = simulation.coverage(world, lives=300, posts=30_000, seed=2, kind=kind)
    assert max(found["ever missed"].values()) <= most(0.05, 300)


def test_false_alarms_over_the_whole_life(simulation: ModuleType) -> None:
    found = simulation.false_alarms(lives=LIVES, posts=6000, seed=3)
    assert set(found) == {"at the bound", "rising to the bound"}
    assert max(found.values()) <= most(0.05, LIVES)


def test_a_doubled_rate_is_found_soon(simulation: ModuleType) -> None:
    """From 0.3, which is the bound, to 0.6 after five days: reviews of normal posts, and days."""
    world = simulation.World(risen={"lgbtq": 0.6}, risen_from=5000)
    counts = [
        simulation.reviews_until_alarm(
            simulation.simulate(world, posts=12_000, rng=np.random.default_rng([4, number])),
            bound=0.3,
            alpha=0.05 / 3,
            after=5000,
        )
        for number in range(16)
    ]
    print(f"median reviews until the alarm: {np.nanmedian(counts):.0f} ({sorted(counts)})")
    assert np.nanmedian(counts) <= 120
    assert np.isfinite(counts).sum() >= 14


def test_estimates_are_hardly_biased_and_flagged_posts_alone_mislead(
    simulation: ModuleType,
) -> None:
    for row in simulation.bias(lives=LIVES, posts=POSTS, seed=5):
        assert row["mean_estimate"] == pytest.approx(row["truth"], abs=0.025)
        assert row["mean_from_flagged_only"] > row["truth"] + 0.1


def test_wilson_at_every_look_fails(simulation: ModuleType) -> None:
    """Why the intervals are time-uniform: one for a single look is wrong sooner or later."""
    found = simulation.peeking(lives=25, posts=12_000, seed=6)
    assert found["wilson"] > 0.15
    assert found["sequences"] <= most(0.05, 25)


def test_late_views_are_taken_in_time(simulation: ModuleType) -> None:
    """The simulated delays depend on the label, and some labels never come."""
    rng = np.random.default_rng(7)
    sample = simulation.simulate(simulation.World(), posts=POSTS, rng=rng).sample
    view = simulation.with_late_labels(sample, seen=len(sample), rng=rng)
    pending = view.state == "pending"
    assert 0.02 < pending.mean() < 0.2
    wrong = (sample.flagged != sample.hate)[: len(view)]
    assert pending[wrong].mean() > 1.5 * pending[~wrong].mean()


def test_the_page_of_figures(simulation: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["monitoring_simulation.py", "--lives", "2", "--posts", "2000"])
        simulation.main()
    printed = capsys.readouterr().out
    assert "| fpr lgbtq |" in printed
    assert "an alarm's wealth" in printed
