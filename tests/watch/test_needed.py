"""How many more labels a claim needs."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from tests.watch.reviewed_samples import GROUPS, PLAN, make_sample

from evenhand.watch.statistics.estimates import draws_of, estimate
from evenhand.watch.statistics.needed import Claim, Needed, labels_needed, planned_labels
from evenhand.watch.statistics.sample import ReviewedSample
from evenhand.watch.statistics.sequences import upper_end


def needed(
    sample: ReviewedSample, *, below: float | None = None, within: float | None = None
) -> Needed:
    return labels_needed(
        sample,
        group="lgbtq",
        claim=Claim(below=below, within=within),
        confidence=0.95,
        labels_per_day=100.0,
    )


def test_the_sentence() -> None:
    found = needed(make_sample(300, fpr=0.2, share=0.4), below=0.3)
    assert found.reviews is not None
    assert found.days is not None
    assert re.fullmatch(
        r"About [\d,]+ more reviews of posts about lgbtq \(about \d+ days? at \d+ a day\) would "
        r"show an FPR below 0\.30 if the rate stays near 0\.\d\d; this is a guide, not a promise\.",
        found.sentence,
    )
    assert found.days == pytest.approx(found.reviews / 50, rel=0.25)  # half of the reviews


def test_so_many_more_show_it_about_half_of_the_time() -> None:
    shown = []
    for seed in range(24):
        whole = make_sample(1200, fpr=0.15, share=0.6, seed=seed)
        part = first(whole, 60)
        found = needed(part, below=0.3)
        if found.reviews:
            reviewed = np.cumsum(["lgbtq" in groups for groups in whole.groups])
            n = int(np.searchsorted(reviewed, reviewed[59] + found.reviews)) + 1
            ends = upper_end(draws_of(first(whole, n), metric="fpr", group="lgbtq"), alpha=0.025)
            shown.append(ends < 0.3)
    assert len(shown) > 12
    assert 0.25 < np.mean(shown) < 0.85


def first(sample: ReviewedSample, n: int) -> ReviewedSample:
    names = ("item", "post", "plan", "inclusion", "score", "flagged", "stratum", "time", "state")
    arrays = {name: getattr(sample, name)[:n] for name in (*names, "hate")}
    return replace(sample, groups=sample.groups[:n], **arrays)


def test_the_answer_agrees_with_a_sample_of_that_size() -> None:
    sample = make_sample(100, fpr=0.2, share=0.5, seed=2)
    found = needed(sample, below=0.25)
    assert found.reviews
    reviewed = sum("lgbtq" in groups for groups in sample.groups)
    times = 1 + found.reviews / reviewed
    whole = int(np.ceil(times))
    repeated = repeat(sample, whole)
    assert upper_end(draws_of(repeated, metric="fpr", group="lgbtq"), alpha=0.025) < 0.25
    assert whole > 2
    fewer = repeat(sample, whole // 2)
    assert upper_end(draws_of(fewer, metric="fpr", group="lgbtq"), alpha=0.025) > 0.25


def repeat(sample: ReviewedSample, times: int) -> ReviewedSample:
    names = ("item", "post", "plan", "inclusion", "score", "flagged", "stratum", "time", "state")
    arrays = {name: np.tile(getattr(sample, name), times) for name in (*names, "hate")}
    return replace(sample, groups=sample.groups * times, **arrays)


def test_a_width() -> None:
    sample = make_sample(400, fpr=0.2)
    coarse, fine = needed(sample, within=0.05), needed(sample, within=0.02)
    assert coarse.reviews
    assert fine.reviews
    assert fine.reviews > 3 * coarse.reviews
    assert "to within 5 pp" in coarse.sentence


def test_what_is_shown_needs_nothing() -> None:
    found = needed(make_sample(3000, fpr=0.1), below=0.3)
    assert (found.reviews, found.days) == (0, 0.0)
    assert found.sentence.startswith("Shown: the FPR of posts about lgbtq is below 0.30, at most")


@pytest.mark.parametrize(
    ("n", "fpr", "words"),
    [
        (150, 0.45, "No number of reviews would show an FPR of posts about lgbtq below 0.30"),
        (4000, 0.5, "has been above 0.30: at least 0."),
        (10, 0.2, "are too few to look ahead from"),
    ],
)
def test_what_no_number_would_show(n: int, fpr: float, words: str) -> None:
    found = needed(make_sample(n, fpr=fpr, share=0.5), below=0.3)
    assert found.reviews is None
    assert words in found.sentence


def test_a_rate_that_moved() -> None:
    early, late = make_sample(1500, fpr=0.05), make_sample(1500, fpr=0.7, seed=1)
    names = ("item", "post", "plan", "inclusion", "score", "flagged", "stratum", "time", "state")
    arrays = {
        name: np.concatenate([getattr(early, name), getattr(late, name)])
        for name in (*names, "hate")
    }
    both = replace(early, groups=early.groups + late.groups, **arrays)
    assert "it has moved" in needed(both, below=0.3).sentence
    one = next(e for e in estimate(both, groups=GROUPS, confidence=0.95) if e.group == "lgbtq")
    assert one.drifted


def test_only_late_labels_stand_in_the_way() -> None:
    sample = make_sample(1200, fpr=0.1, seed=3)
    assert needed(sample, below=0.2).reviews == 0
    late = np.zeros(1200, dtype=bool)
    late[::6] = True
    waiting = replace(
        sample,
        state=np.where(late, "pending", "labelled"),
        hate=sample.hate & ~late,
        groups=tuple(() if w else g for g, w in zip(sample.groups, late, strict=True)),
    )
    found = needed(waiting, below=0.2)
    assert found.reviews == 0
    assert "200 posts that wait for a label" in found.sentence


def test_planning_before_any_review() -> None:
    def plan(rate: float, below: float) -> Needed:
        claim = Claim(below=below)
        return planned_labels(PLAN, group="lgbtq", rate=rate, claim=claim, confidence=0.95)

    near, far = plan(0.25, 0.3), plan(0.1, 0.3)
    assert near.reviews
    assert far.reviews
    assert near.reviews > 4 * far.reviews
    # 80% of those proposed, 32 x 0.8 + 48 x 0.4, and as many posts, 80, among the 900 of none.
    assert far.days == pytest.approx(far.reviews / (44.8 + 80 / 900 * (200 * 0.4 + 700 * 0.1)))
    assert "if the rate stays near 0.10, the offline one, and this is a guide" in far.sentence
    assert plan(0.4, 0.3).reviews is None
    claim = Claim(below=0.3)
    other = planned_labels(PLAN, group="mexican", rate=0.1, claim=claim, confidence=0.95)
    assert "too few posts about mexican" in other.sentence


def test_planning_agrees_with_what_a_sample_then_needs() -> None:
    claim = Claim(below=0.3)
    planned = planned_labels(PLAN, group="lgbtq", rate=0.2, claim=claim, confidence=0.95)
    assert planned.reviews
    # Such a sample has as many labels when its sequence first shows the claim, within a factor.
    counts = []
    for seed in range(9):
        sample = make_sample(3000, fpr=0.2, share=0.1, hate=0.1, seed=seed, misproposed=0.5)
        bets = draws_of(sample, metric="fpr", group="lgbtq").below
        first = int(np.argmax(bets.log_wealth(0.7) >= np.log(40)))
        counts.append(sum("lgbtq" in g for g in sample.groups[: bets.ends[first]]))
    assert planned.reviews / 2.5 < np.median(counts) < planned.reviews * 2.5


def test_a_claim_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="one of the two"):
        Claim()
    with pytest.raises(ValueError, match="one of the two"):
        Claim(below=0.3, within=0.05)
