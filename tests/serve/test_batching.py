from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serve.conftest import READINESS, fake_scorer, make_release, make_settings

from evenhand.core.errors import StorageError
from evenhand.core.production import Answer
from evenhand.serve.batching import Batcher, QueueFullError, StoppedError, StoringError
from evenhand.serve.metrics import Metrics
from evenhand.serve.scoring import AskedPost, ScoringError
from evenhand.serve.service import Service
from evenhand.watch.store.database import RowError


class Recorded:
    """Keeps what it is given, batch by batch."""

    def __init__(self) -> None:
        self.batches: list[list[Answer]] = []

    def record(self, answers: Sequence[Answer]) -> None:
        self.batches.append(list(answers))

    @property
    def answers(self) -> list[Answer]:
        return [answer for batch in self.batches for answer in batch]


def posts_of(*texts: str) -> list[AskedPost]:
    return [AskedPost(f"{number}-{text}", text) for number, text in enumerate(texts)]


@contextmanager
def running(intake: Any, scorer: Any = fake_scorer, **serve: Any) -> Any:
    database: Any = SimpleNamespace()
    service = Service(make_release(), scorer, database, intake, READINESS)
    batcher = Batcher(
        service,
        make_settings(**serve).serve,
        metrics=Metrics(service.release),
        now=lambda: datetime.now(UTC),
    )
    batcher.start()
    try:
        yield batcher
    finally:
        assert batcher.drain(10)


class Gate:
    """A scorer that waits until it is let through, and says what it was given."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)
        self.batches: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.batches.append(list(texts))
        self.entered.release()
        assert self.leave.acquire(timeout=10)
        return np.full(len(texts), 0.5)


@given(
    requests=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    max_batch_rows=st.integers(1, 8),
)
@settings(max_examples=25, derandomize=True)
def test_each_request_gets_its_own_answers_and_all_are_stored_once(
    requests: list[int], max_batch_rows: int
) -> None:
    intake = Recorded()
    with (
        running(intake, max_batch_rows=max_batch_rows, max_wait_ms=0.0) as batcher,
        ThreadPoolExecutor(4) as pool,
    ):
        asked = [
            [AskedPost(f"{who}-{n}", f"score=0.{who + 1}{n}") for n in range(count)]
            for who, count in enumerate(requests)
        ]
        futures = list(pool.map(batcher.submit, asked))
        for posts, future in zip(asked, futures, strict=True):
            answers = future.result(10)
            assert [(one.id, one.text) for one in answers] == [(p.id, p.text) for p in posts]
            assert all(one.score == float(one.text.removeprefix("score=")) for one in answers)
    assert sorted(one.id for one in intake.answers) == sorted(p.id for a in asked for p in a)
    assert max(len(batch) for batch in intake.batches) <= max_batch_rows


def test_what_waits_is_one_batch_and_the_next_is_scored_while_one_is_stored() -> None:
    gate = Gate()
    storing = threading.Event()
    stored = threading.Event()

    class Slow(Recorded):
        def record(self, answers: Sequence[Answer]) -> None:
            storing.set()
            assert stored.wait(10)
            super().record(answers)

    intake = Slow()
    with running(intake, gate, max_batch_rows=4) as batcher:
        first = batcher.submit(posts_of("a"))
        assert gate.entered.acquire(timeout=10)
        others = [batcher.submit(posts_of(text)) for text in "bcdef"]
        gate.leave.release()
        assert storing.wait(10)
        assert gate.entered.acquire(timeout=10)  # scored while the first is being stored
        assert gate.batches == [["a"], ["b", "c", "d", "e"]]
        assert not first.done()  # scored, but not stored
        stored.set()
        gate.leave.release(2)
        assert [one.result(10)[0].text for one in (first, *others)] == list("abcdef")


def test_an_idle_server_waits_a_moment_for_others() -> None:
    intake = Recorded()
    with running(intake, max_wait_ms=2000.0, max_batch_rows=3) as batcher:
        futures = [batcher.submit(posts_of(text)) for text in "abc"]
        for future in futures:
            future.result(1.5)  # a full batch does not wait
    assert [len(batch) for batch in intake.batches] == [3]


def test_a_full_queue_refuses_and_an_empty_one_takes_any_request() -> None:
    gate = Gate()
    with running(Recorded(), gate, max_waiting_rows=2, max_batch_rows=2) as batcher:
        running_now = batcher.submit(posts_of("a"))
        assert gate.entered.acquire(timeout=10)
        large = batcher.submit(posts_of("b", "c", "d"))  # nothing waits: taken as it is
        with pytest.raises(QueueFullError) as caught:
            batcher.submit(posts_of("e"))
        assert caught.value.retry_after_seconds >= 1
        gate.leave.release(10)
        assert len(running_now.result(10)) == 1
        assert len(large.result(10)) == 3


def test_a_request_that_would_wait_longer_than_the_timeout_is_refused() -> None:
    gate = Gate()
    with running(
        Recorded(), gate, max_waiting_rows=1000, max_batch_rows=2, timeout_seconds=0.5
    ) as batcher:
        first = batcher.submit(posts_of("a", "b"))
        assert gate.entered.acquire(timeout=10)
        threading.Timer(0.2, gate.leave.release).start()  # two posts in 0.2 s
        first.result(10)
        batcher.submit(posts_of("c", "d"))
        assert gate.entered.acquire(timeout=10)
        batcher.submit(posts_of("e"))
        with pytest.raises(QueueFullError):
            batcher.submit(posts_of(*"fghijklmn"))
        gate.leave.release(10)


def test_a_failing_post_fails_its_own_request_alone_and_is_stored_as_an_error() -> None:
    entered = threading.Event()

    def scorer(texts: Sequence[str]) -> np.ndarray:
        entered.wait(10)
        if "bad" in texts:
            raise RuntimeError("bad")
        return fake_scorer(texts)

    intake = Recorded()
    with running(intake, scorer) as batcher:
        futures = [batcher.submit(posts_of(*texts)) for texts in (["x"], ["y", "bad"], ["z"])]
        entered.set()
        assert futures[0].result(10)[0].decision == "normal"
        assert futures[2].result(10)[0].decision == "normal"
        with pytest.raises(ScoringError):
            futures[1].result(10)
    stored = {one.text: (one.status, one.score, one.decision) for one in intake.answers}
    assert stored["bad"] == stored["y"] == ("error", None, None)
    assert stored["x"] == ("ok", 0.1, "normal")


@pytest.mark.parametrize(
    "wrong",
    [np.array([]), np.array([0.5, 0.5]), np.array([np.nan]), np.array([1.2]), np.array([[0.5]])],
    ids=["none", "too many", "nan", "above one", "another shape"],
)
def test_unusable_scores_are_a_failure(wrong: np.ndarray) -> None:
    intake = Recorded()
    with running(intake, lambda _: wrong) as batcher, pytest.raises(ScoringError):
        batcher.submit(posts_of("a")).result(10)
    assert [one.status for one in intake.answers] == ["error"]


def test_a_storage_failure_answers_nobody_and_the_server_goes_on() -> None:
    class Flaky(Recorded):
        fails = True

        def record(self, answers: Sequence[Answer]) -> None:
            if self.fails:
                raise StorageError("the disk is full")
            super().record(answers)

    intake = Flaky()
    with running(intake) as batcher:
        with pytest.raises(StoringError):
            batcher.submit(posts_of("a")).result(10)
        assert not batcher.stores
        intake.fails = False
        assert len(batcher.submit(posts_of("b")).result(10)) == 1
        assert batcher.stores
    assert [one.text for one in intake.answers] == ["b"]


@pytest.mark.parametrize("error", [ValueError("a row"), RowError("a row")])
def test_a_row_that_cannot_be_stored_fails_its_own_request_alone(error: Exception) -> None:
    class Picky(Recorded):
        def record(self, answers: Sequence[Answer]) -> None:
            if any(one.text == "bad" for one in answers):
                raise error
            super().record(answers)

    intake = Picky()
    with running(intake, max_wait_ms=200.0, max_batch_rows=2) as batcher:
        good, bad = (batcher.submit(posts_of(text)) for text in ("good", "bad"))
        assert good.result(10)[0].text == "good"
        with pytest.raises(StoringError):
            bad.result(10)
    assert [one.text for one in intake.answers] == ["good"]


def test_a_cancelled_request_that_waits_is_not_scored() -> None:
    gate = Gate()
    with running(Recorded(), gate) as batcher:
        first = batcher.submit(posts_of("a"))
        assert gate.entered.acquire(timeout=10)
        gone = batcher.submit(posts_of("b"))
        stays = batcher.submit(posts_of("c"))
        assert gone.cancel()
        assert not first.cancel()  # too late: it is being scored, and will be stored
        gate.leave.release(5)
        assert stays.result(10)[0].text == "c"
    assert gate.batches == [["a"], ["c"]]


def test_draining_finishes_what_was_accepted_and_takes_no_more() -> None:
    gate = Gate()
    intake = Recorded()
    with running(intake, gate, max_batch_rows=1) as batcher:
        futures = [batcher.submit(posts_of(text)) for text in "abc"]
        assert gate.entered.acquire(timeout=10)
        assert not batcher.drain(0.01)
        with pytest.raises(StoppedError):
            batcher.submit(posts_of("d"))
        gate.leave.release(5)
        assert batcher.drain(10)
        assert all(future.done() for future in futures)
        assert not batcher.is_alive
    assert [one.text for one in intake.answers] == list("abc")
