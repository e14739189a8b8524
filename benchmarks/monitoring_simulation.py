"""What the monitor's statistics promise, measured on simulated production whose truth is known.

Coverage of the confidence sequences over the whole life of a release, false alarms, the delay until
a risen false-positive rate alarms, the bias of the estimates, and what simpler ways would have said
(Wilson's interval at every look; estimates from flagged posts alone):
    python benchmarks/monitoring_simulation.py [--lives 100] [--seed 0] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from evenhand.watch.statistics.estimates import METRICS, Metric, about, draws_of, estimate
from evenhand.watch.statistics.needed import Claim, labels_needed, planned_labels
from evenhand.watch.statistics.sample import ReviewedSample
from evenhand.watch.statistics.sampling import Plan, make_plan
from evenhand.watch.statistics.sequences import (
    Draws,
    interval,
    log_alarm_wealth,
    log_wealth_above,
    log_wealth_below,
)

GROUPS = ("lgbtq", "mexican", "middle_east")
NAMES = np.array([*GROUPS, "none"])
PLAN_POSTS = 1000
# A plan may look at all that is known so far: the posts a day by stratum, and the sample's labels.
Planner = Callable[[Mapping[str, float], list[bool], np.random.Generator], Plan]


@dataclass(frozen=True)
class World:
    """Production as it is, unknown to the monitor.

    Attributes:
        shares: of the posts about each group; the rest is about none.
        hate: the share of hateful posts.
        fpr: by group, ``none`` among them.
        fnr: of all.
        risen: the FPR of each group that changes, and from which post on.
        found: posts about a group that are proposed for it; 0.28 to 0.46 by the shipped terms.
        mistaken: posts about none that are proposed for some group.
        labels_per_day: the budget, at 1,000 posts a day.
    """

    shares: tuple[float, ...] = (0.10, 0.05, 0.05)
    hate: float = 0.3
    fpr: Mapping[str, float] = field(
        default_factory=lambda: {"lgbtq": 0.3, "mexican": 0.2, "middle_east": 0.1, "none": 0.1}
    )
    fnr: float = 0.25
    risen: Mapping[str, float] = field(default_factory=dict)
    risen_from: int = 0
    found: float = 0.4
    mistaken: float = 0.03
    labels_per_day: float = 200.0


@dataclass(frozen=True, eq=False)
class Life:
    """A simulated release: its reviewed sample with every label, and each item's post number."""

    sample: ReviewedSample
    post_number: np.ndarray


def by_traffic(world: World) -> Planner:
    """Plans as production makes them."""

    def plan(traffic: Mapping[str, float], errors: list[bool], rng: np.random.Generator) -> Plan:
        del errors, rng
        return make_plan(
            traffic, labels_per_day=world.labels_per_day, min_inclusion=0.01, groups=GROUPS
        )

    return plan


def spiteful(world: World) -> Planner:
    """Plans that react to the labels and put the weights where they mislead most."""
    usual = by_traffic(world)

    def plan(traffic: Mapping[str, float], errors: list[bool], rng: np.random.Generator) -> Plan:
        made = usual(traffic, errors, rng)
        recent = errors[-40:]
        high = bool(recent) and np.mean(recent) > 0.25
        rates = {
            stratum: float(np.clip(rate * (0.3 if ("/hate/" in stratum) == high else 2.0), 0.01, 1))
            for stratum, rate in made.rates.items()
        }
        return Plan(rates=rates, default_rate=min(rates.values()))

    return plan


def simulate(
    world: World, *, posts: int, rng: np.random.Generator, planner: Planner | None = None
) -> Life:
    """Return the reviewed sample of a release, every label known."""
    planner = planner or by_traffic(world)
    cumulative = np.cumsum(world.shares)
    rates = np.array([world.fpr[name] for name in NAMES])
    risen = np.array([world.risen.get(name, world.fpr[name]) for name in NAMES])
    plans: list[Plan] = []
    errors: list[bool] = []
    parts: list[dict[str, np.ndarray]] = []
    before: dict[str, float] = {}
    for start in range(0, posts, PLAN_POSTS):
        n = min(PLAN_POSTS, posts - start)
        number = start + np.arange(n)
        group = np.searchsorted(cumulative, rng.random(n), side="right")
        hate = rng.random(n) < world.hate
        fpr = np.where(number < world.risen_from, rates[group], risen[group])
        flagged = rng.random(n) < np.where(hate, 1 - world.fnr, fpr)
        score = np.where(flagged, 0.5 + rng.random(n) / 2, rng.random(n) / 2)
        none = len(GROUPS)
        lost = (group != none) & (rng.random(n) >= world.found)
        invented = (group == none) & (rng.random(n) < world.mistaken)
        proposed = np.where(lost, none, np.where(invented, rng.integers(0, none, n), group))
        near = np.abs(score - 0.5) <= 0.15
        stratum = np.char.add(
            np.char.add(NAMES[proposed], np.where(flagged, "/hate", "/normal")),
            np.where(near, "/near", "/far"),
        )
        if not before:
            before = {"none/normal/far": 600.0, "none/hate/far": 400.0}
        plan = planner(before, errors, rng)
        inclusion = np.array([plan.rate(one) for one in stratum.tolist()])
        drawn = rng.random(n) < inclusion
        parts.append(
            {
                "plan": np.full(drawn.sum(), len(plans)),
                "inclusion": inclusion[drawn],
                "score": score[drawn],
                "flagged": flagged[drawn],
                "stratum": stratum[drawn].astype(object),
                "hate": hate[drawn],
                "group": group[drawn],
                "number": number[drawn],
            }
        )
        errors += flagged[drawn & ~hate].tolist()
        plans.append(plan)
        names, counts = np.unique(stratum, return_counts=True)
        seen = dict(zip(names.tolist(), (counts * PLAN_POSTS / n).tolist(), strict=True))
        before = {s: (before.get(s, 0) + seen.get(s, 0)) / 2 for s in {*before, *seen}}
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    group, number = joined.pop("group"), joined.pop("number")
    named = [(name,) for name in GROUPS] + [()]
    n = len(number)
    sample = ReviewedSample(
        item=np.arange(n),
        post=number.astype(str).astype(object),
        time=np.datetime64("2026-01-01T00:00:00", "us")
        + (number * 86.4e6).astype("timedelta64[us]"),
        state=np.full(n, "labelled"),
        groups=tuple(named[one] for one in group.tolist()),
        plans=tuple(plans),
        **joined,
    )
    return Life(sample, number)


def with_late_labels(
    sample: ReviewedSample, *, seen: int, rng: np.random.Generator
) -> ReviewedSample:
    """Return the sample as it looks when ``seen`` items were offered: errors are labelled late.

    A label takes a tenth of the time where it says that the model was right, so that those which
    are there are the model's successes for the most part; one in fifty never comes.
    """
    part = _first(sample, seen)
    wrong = part.flagged != part.hate
    delay = rng.exponential(np.where(wrong, 60.0, 6.0))
    known = (np.arange(seen) + delay < seen) & (rng.random(seen) >= 0.02)
    frontier = int(np.flatnonzero(known)[-1]) + 1 if known.any() else 0
    part, known = _first(part, frontier), known[:frontier]
    groups = tuple(
        one if is_known else () for one, is_known in zip(part.groups, known, strict=True)
    )
    state = np.where(known, "labelled", "pending")
    return replace(part, state=state, hate=part.hate & known, groups=groups)


def _first(sample: ReviewedSample, n: int) -> ReviewedSample:
    names = ("item", "post", "plan", "inclusion", "score", "flagged", "stratum", "time", "state")
    arrays = {name: getattr(sample, name)[:n] for name in (*names, "hate")}
    return replace(sample, groups=sample.groups[:n], **arrays)


def true_rate(world: World, metric: str, group: str | None) -> float:
    """The constant rate of a world in which nothing rises."""
    if metric == "fnr":
        return world.fnr
    if group is not None:
        return world.fpr[group]
    shares = [*world.shares, 1 - sum(world.shares)]
    return float(sum(s * world.fpr[name] for s, name in zip(shares, NAMES, strict=True)))


def is_ever_missed(
    sample: ReviewedSample, *, metric: Metric, group: str | None, rate: float
) -> bool:
    """Whether the 95% interval leaves the true rate out at any checkpoint."""
    draws = draws_of(sample, metric=metric, group=group)
    goal = np.log(2 / 0.05)
    above, below = log_wealth_above(draws, rate), log_wealth_below(draws, rate)
    return bool(len(above) and max(above.max(), below.max()) >= goal)


def is_wilson_ever_missed(sample: ReviewedSample, *, group: str, rate: float) -> bool:
    """The same for Wilson's 95% interval of the unweighted sample, looked at every 25 items.

    The world has to sample all posts at one rate, so that no weights are needed.
    """
    member = ~sample.hate & about(sample, group)
    labels = np.cumsum(member)[24::25]
    hits = np.cumsum(member & sample.flagged)[24::25]
    enough = labels >= 20
    low, high = proportion_confint(hits[enough], labels[enough], method="wilson")
    return bool(((rate < low) | (rate > high)).any())


def reviews_until_alarm(life: Life, *, bound: float, alpha: float, after: int) -> float:
    """Reviewed normal posts about lgbtq since the change until the alarm; infinite if none.

    NaN if it came before the change.
    """
    draws = draws_of(life.sample, metric="fpr", group="lgbtq")
    shown = np.flatnonzero(log_alarm_wealth(draws, bound) >= -np.log(alpha))
    if not len(shown):
        return np.inf
    end = draws.above.ends[shown[0]]
    if life.post_number[end - 1] < after:
        return np.nan
    return float(draws.member[:end][life.post_number[:end] >= after].sum())


def coverage(world: World, *, lives: int, posts: int, seed: int, kind: str) -> dict[str, Any]:
    """How often a 95% interval ever leaves the truth out, over all groups and both rates."""
    missed: dict[tuple[str, str | None], int] = {}
    for life_number in range(lives):
        rng = np.random.default_rng([seed, life_number])
        planner = spiteful(world) if kind == "spiteful plans" else None
        sample = simulate(world, posts=posts, rng=rng, planner=planner).sample
        views = [sample]
        if kind == "late labels":
            sizes = np.linspace(0.2, 1.0, 5) * len(sample)
            views = [with_late_labels(sample, seen=int(n), rng=rng) for n in sizes]
        for metric in METRICS:
            for group in (None, *GROUPS):
                rate = true_rate(world, metric, group)
                key = (metric, group)
                ever = any(
                    is_ever_missed(view, metric=metric, group=group, rate=rate) for view in views
                )
                missed[key] = missed.get(key, 0) + ever
    shares = {f"{metric} {group or 'all'}": n / lives for (metric, group), n in missed.items()}
    return {"lives": lives, "posts": posts, "ever missed": shares}


def false_alarms(*, lives: int, posts: int, seed: int, bound: float = 0.3) -> dict[str, float]:
    """The share of lives with an FPR alarm although every group is at its bound, or far under."""
    found = {}
    for name, low in (("at the bound", bound), ("rising to the bound", 0.1)):
        world = World(
            fpr={**dict.fromkeys(GROUPS, low), "none": 0.1},
            risen=dict.fromkeys(GROUPS, bound),
            risen_from=posts // 3,
        )
        alarms = 0
        for number in range(lives):
            rng = np.random.default_rng([seed, number])
            sample = simulate(world, posts=posts, rng=rng).sample
            alarms += any(
                log_alarm_wealth(draws_of(sample, metric="fpr", group=g), bound).max()
                >= np.log(len(GROUPS) / 0.05)
                for g in GROUPS
            )
        found[name] = alarms / lives
    return found


def delays(*, lives: int, seed: int, bound: float = 0.3) -> list[dict[str, float | None]]:
    """How long a risen FPR of one group goes on before it alarms (alpha shared by three groups)."""
    rows = []
    for usual, risen, after in (
        (0.3, 0.6, 0),
        (0.2, 0.4, 0),
        (0.2, 0.4, 10_000),
        (0.3, 0.6, 10_000),
    ):
        world = World(
            fpr={"lgbtq": usual, "mexican": 0.2, "middle_east": 0.1, "none": 0.1},
            risen={"lgbtq": risen},
            risen_from=after,
        )
        counts, days = [], []
        for number in range(lives):
            rng = np.random.default_rng([seed, number])
            life = simulate(world, posts=after + 30_000, rng=rng)
            count = reviews_until_alarm(life, bound=bound, alpha=0.05 / 3, after=after)
            draws = draws_of(life.sample, metric="fpr", group="lgbtq")
            since = draws.member[life.post_number >= after].sum() / 30
            counts.append(count)
            days.append(count / since)
        rows.append(
            {
                "usual": usual,
                "risen": risen,
                "after_days": after / 1000,
                "median_reviews": _finite(np.nanmedian(counts)),
                "p90_reviews": _finite(np.nanquantile(counts, 0.9, method="higher")),
                "median_days": _finite(np.nanmedian(days)),
            }
        )
    return rows


def _finite(value: float) -> float | None:
    """None where the alarm did not come within the simulated time."""
    return None if np.isinf(value) else float(value)


def bias(*, lives: int, posts: int, seed: int) -> list[dict[str, Any]]:
    """The mean of the estimates against the truth, and what flagged posts alone would say."""
    world = World()
    values: dict[str, list[float]] = {g: [] for g in GROUPS}
    flagged_only: dict[str, list[float]] = {g: [] for g in GROUPS}
    widths: dict[str, list[float]] = {g: [] for g in GROUPS}
    for number in range(lives):
        sample = simulate(world, posts=posts, rng=np.random.default_rng([seed, number])).sample
        for group in GROUPS:
            draws = draws_of(sample, metric="fpr", group=group)
            values[group].append(draws.value or 0.0)
            ends = interval(draws, alpha=0.05)
            widths[group].append(ends.high - ends.low)
            seen = sample.flagged & about(sample, group)
            weights = 1 / sample.inclusion[seen]
            wrong = ~sample.hate[seen]
            flagged_only[group].append(float(weights @ wrong / weights.sum()))
    return [
        {
            "group": group,
            "truth": world.fpr[group],
            "mean_estimate": float(np.mean(values[group])),
            "mean_width": float(np.mean(widths[group])),
            "mean_from_flagged_only": float(np.mean(flagged_only[group])),
        }
        for group in GROUPS
    ]


def peeking(*, lives: int, posts: int, seed: int) -> dict[str, float]:
    """How often an interval ever leaves out lgbtq's FPR, looked at every 25 items."""
    world = World()
    rate = world.fpr["lgbtq"]

    def one_rate(
        traffic: Mapping[str, float], errors: list[bool], rng: np.random.Generator
    ) -> Plan:
        del traffic, errors, rng
        return Plan(rates={}, default_rate=0.2)

    wilson = ours = 0
    for number in range(lives):
        rng = np.random.default_rng([seed, number])
        sample = simulate(world, posts=posts, rng=rng, planner=one_rate).sample
        wilson += is_wilson_ever_missed(sample, group="lgbtq", rate=rate)
        ours += is_ever_missed(sample, metric="fpr", group="lgbtq", rate=rate)
    return {"wilson": wilson / lives, "sequences": ours / lives}


def unlabelled(*, lives: int, posts: int, seed: int) -> dict[str, list[float]]:
    """The mean ends of lgbtq's interval where a share of the labels never comes, at random."""
    found = {}
    for share in (0.0, 0.01, 0.03, 0.2):
        ends = []
        for number in range(lives):
            rng = np.random.default_rng([seed, number])
            sample = simulate(World(), posts=posts, rng=rng).sample
            draws = draws_of(sample, metric="fpr", group="lgbtq")
            never = rng.random(len(sample)) < share
            one = interval(replace(draws, member=draws.member & ~never, pending=never), alpha=0.05)
            ends.append((one.low, one.high))
        found[f"{share:.0%}"] = np.mean(ends, axis=0).tolist()
    return found


def looking_ahead(*, lives: int, posts: int, seed: int) -> list[dict[str, float | None]]:
    """Days until lgbtq's FPR is shown below 0.3: by day 1's plan, told on day 1.5, and taken."""
    claim, rows = Claim(below=0.3), []
    for rate in (0.2, 0.1):
        world = World(fpr={**World().fpr, "lgbtq": rate})
        planned, told, took = [], [], []
        for number in range(lives):
            life = simulate(world, posts=posts, rng=np.random.default_rng([seed, number]))
            before = planned_labels(
                life.sample.plans[1], group="lgbtq", rate=rate, claim=claim, confidence=0.95
            )
            part = _first(life.sample, int(np.searchsorted(life.post_number, 1500)))
            after = labels_needed(
                part, group="lgbtq", claim=claim, confidence=0.95, labels_per_day=200.0
            )
            bets = draws_of(life.sample, metric="fpr", group="lgbtq").below
            shown = bets.ends[bets.log_wealth(0.7) >= np.log(2 / 0.05)]
            planned.append(np.inf if before.days is None else before.days)
            told.append(np.inf if after.days is None else 1.5 + after.days)
            took.append(life.post_number[shown[0] - 1] / 1000 if len(shown) else np.inf)
        row = {"rate": rate, "planned": _finite(np.median(planned))}
        for name, days in (("told", told), ("took", took)):
            for share in (0.25, 0.5, 0.75):
                row[f"{name}_{share}"] = _finite(np.quantile(days, share, method="higher"))
        rows.append(row)
    return rows


def widths(*, lives: int, seed: int) -> dict[int, float]:
    """The mean width of the interval of an FPR of 0.2 after so many reviews of equal weight."""
    found = {}
    for n in (50, 200, 500):
        ends = []
        for number in range(lives):
            error = np.random.default_rng([seed, number]).random(n) < 0.2
            every, half = np.ones(n, dtype=bool), np.full(n, 0.5)
            ends.append(interval(Draws(every, ~every, error, half, half, half), alpha=0.05))
        found[n] = float(np.mean([one.high - one.low for one in ends]))
    return found


def speed(*, seed: int) -> dict[str, float]:
    """Seconds for all estimates of about 20,000 labels, and of one alarm."""
    world = World(labels_per_day=400.0)
    sample = simulate(world, posts=50_000, rng=np.random.default_rng(seed)).sample
    start = time.perf_counter()
    estimate(sample, groups=GROUPS, confidence=0.95)
    middle = time.perf_counter()
    log_alarm_wealth(draws_of(sample, metric="fpr", group="lgbtq"), 0.3)
    end = time.perf_counter()
    return {"labels": len(sample), "estimates": middle - start, "alarm": end - middle}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lives", type=int, default=100)
    parser.add_argument("--posts", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lives, posts, seed = options.lives, options.posts, options.seed
    start = time.perf_counter()
    kinds = ("plans by traffic", "spiteful plans", "late labels")
    result = {
        "lives": lives,
        "posts": posts,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "coverage": {
            kind: coverage(World(), lives=lives, posts=posts, seed=seed, kind=kind)
            for kind in kinds
        },
        "false_alarms": false_alarms(lives=lives, posts=posts, seed=seed),
        "delays": delays(lives=max(1, lives // 2), seed=seed),
        "bias": bias(lives=lives, posts=max(1000, posts // 4), seed=seed),
        "unlabelled": unlabelled(lives=max(1, lives // 4), posts=max(1000, posts // 2), seed=seed),
        "peeking": peeking(lives=lives, posts=posts, seed=seed),
        "looking_ahead": looking_ahead(lives=max(1, lives // 4), posts=posts, seed=seed),
        "widths": widths(lives=lives, seed=seed),
        "speed": speed(seed=seed),
    }
    result["seconds"] = time.perf_counter() - start
    print(json.dumps(result) if options.json else _tables(result))


def _tables(result: Mapping[str, Any]) -> str:
    lines = [f"{result['lives']} lives of {result['posts']:,} posts; {result['machine']}", ""]
    kinds = result["coverage"]
    lines += ["| ever outside of its 95% interval | " + " | ".join(kinds) + " |"]
    lines += ["|---" * (len(kinds) + 1) + "|"]
    for rate in next(iter(kinds.values()))["ever missed"]:
        shares = " | ".join(f"{100 * kind['ever missed'][rate]:.1f}%" for kind in kinds.values())
        lines.append(f"| {rate} | {shares} |")
    lines += ["", "| lives with a false FPR alarm | share |", "|---|---|"]
    lines += [f"| {name} | {100 * share:.1f}% |" for name, share in result["false_alarms"].items()]
    lines += ["", "| FPR | risen to | after days | median reviews | 90% by | median days |"]
    lines += ["|---" * 6 + "|"]
    for row in result["delays"]:
        late = [row[name] for name in ("median_reviews", "p90_reviews", "median_days")]
        shown = ["not in 30 days" if one is None else f"{one:.3g}" for one in late]
        change = f"| {row['usual']} | {row['risen']} | {row['after_days']:.0f} | "
        lines.append(change + " | ".join(shown) + " |")
    lines += ["", "| group | FPR | mean estimate | mean width | from flagged posts alone |"]
    lines += ["|---" * 5 + "|"]
    lines += [
        f"| {row['group']} | {row['truth']} | {row['mean_estimate']:.3f} | {row['mean_width']:.3f} "
        f"| {row['mean_from_flagged_only']:.3f} |"
        for row in result["bias"]
    ]
    lines += ["", "| labels that never come | mean interval of lgbtq |", "|---|---|"]
    lines += [
        f"| {share} | {low:.2f} to {high:.2f} |"
        for share, (low, high) in result["unlabelled"].items()
    ]
    lines += ["", "| FPR | planned | told after 1.5 days | took |", "|---|---|---|---|"]
    for row in result["looking_ahead"]:
        shown = [
            "never" if row["planned"] is None else f"{row['planned']:.0f}",
            *(
                ", ".join(
                    "-" if days is None else f"{days:.0f}"
                    for days in (row[f"{name}_{share}"] for share in (0.25, 0.5, 0.75))
                )
                for name in ("told", "took")
            ),
        ]
        lines.append(f"| {row['rate']} | " + " | ".join(shown) + " |")
    of_width = "; ".join(f"{width:.2f} after {n}" for n, width in result["widths"].items())
    lines += ["", f"Mean width at an FPR of 0.2 with equal weights: {of_width}."]
    peeking_, speed_ = result["peeking"], result["speed"]
    lines += [
        "",
        f"Looked at every 25 items, Wilson's interval once left the truth out in "
        f"{100 * peeking_['wilson']:.0f}% of lives, the sequence in "
        f"{100 * peeking_['sequences']:.1f}%.",
        f"All estimates of {speed_['labels']:,} labels: {speed_['estimates']:.2f} s; "
        f"an alarm's wealth: {speed_['alarm']:.3f} s. All of this: {result['seconds']:.0f} s.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
