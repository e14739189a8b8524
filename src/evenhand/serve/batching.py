"""Dynamic micro-batching: one thread scores what waits, a second one stores what was scored.

A batch is whatever waits when the scoring thread is free. While a batch is stored the next one is
already scored. The future of a request is resolved after its posts were stored, so that an answer
that was given is always in the database.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime

from evenhand.config.production_schema import ServeConfig
from evenhand.core.errors import EvenhandError, StorageError
from evenhand.core.production import Answer
from evenhand.serve.logs import log_failure
from evenhand.serve.metrics import Metrics
from evenhand.serve.scoring import AskedPost, ScoringError, failed_answers, make_judge
from evenhand.serve.service import Service
from evenhand.watch.store.database import RowError

_LONGEST_RETRY_SECONDS = 60
_RATE_MEMORY = 0.8
# Of the time limit: who is accepted shall be answered, also if scoring slows down to half its rate.
_PATIENCE = 0.5
_UNHEALTHY_SECONDS = 10.0


class QueueFullError(EvenhandError):
    """More posts wait than are accepted."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("too many posts wait")
        self.retry_after_seconds = retry_after_seconds


class StoppedError(EvenhandError):
    """The server takes no more posts."""


class StoringError(EvenhandError):
    """The answers could not be stored, so they are not given."""


@dataclass(eq=False)
class _Job:
    """The posts of one request, and what has become of them.

    Until it is taken a job belongs to the queue (under the lock), then to the storing thread.
    """

    posts: Sequence[AskedPost]
    future: Future[tuple[Answer, ...]] = field(default_factory=Future)
    taken: int = 0
    answers: list[Answer] = field(default_factory=list)
    failure: Exception | None = None


@dataclass(frozen=True)
class _Part:
    """The posts of one job that are in one batch."""

    job: _Job
    posts: Sequence[AskedPost]


@dataclass(frozen=True)
class _Scored:
    """A part with its answers; ``failure`` where it could not be scored."""

    part: _Part
    answers: tuple[Answer, ...]
    failure: Exception | None = None


class Batcher:
    """The queue and its two threads."""

    def __init__(
        self,
        service: Service,
        settings: ServeConfig,
        *,
        metrics: Metrics,
        now: Callable[[], datetime],
    ) -> None:
        self._intake = service.intake
        self._judge = make_judge(service.scorer, service.release)
        self._settings = settings
        self._metrics = metrics
        self._now = now
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._waiting_rows = 0
        self._accepting = False
        self._rows_per_second: float | None = None
        self._store_failed_at: float | None = None
        # One batch may wait for the storing thread; beyond that scoring waits, and the queue fills.
        self._scored: queue.Queue[list[_Scored] | None] = queue.Queue(maxsize=1)
        self._threads = (
            threading.Thread(target=self._score_forever, name="evenhand-scoring", daemon=True),
            threading.Thread(target=self._store_forever, name="evenhand-storing", daemon=True),
        )
        metrics.watch_queue(lambda: self._waiting_rows)

    @property
    def is_alive(self) -> bool:
        """Whether both threads run."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def stores(self) -> bool:
        """Whether storing has not failed in the last seconds."""
        failed = self._store_failed_at
        return failed is None or time.monotonic() - failed > _UNHEALTHY_SECONDS

    @property
    def retry_after_seconds(self) -> int:
        """When what waits now will have been scored, at the measured rate; 1 to 60."""
        if self._rows_per_second is None:
            return 1
        seconds = math.ceil(self._waiting_rows / self._rows_per_second)
        return min(max(seconds, 1), _LONGEST_RETRY_SECONDS)

    def start(self) -> None:
        """Start both threads; before this nothing is accepted."""
        self._accepting = True
        for thread in self._threads:
            thread.start()

    def submit(self, posts: Sequence[AskedPost]) -> Future[tuple[Answer, ...]]:
        """Put the posts of a request in the queue.

        The future gives their answers in order once all are stored. It raises
        :class:`~evenhand.serve.scoring.ScoringError` where the model failed (the posts are stored
        with the status ``error``) and :class:`StoringError` where the database did. A future that
        is cancelled before its first post was taken is not scored at all.

        Raises:
            QueueFullError: too many wait, or they would wait longer than half of the time limit.
            StoppedError: the server is stopping, or has not started.
        """
        job = _Job(posts)
        with self._changed:
            if not self._accepting:
                raise StoppedError("the server is stopping")
            if self._waiting_rows and self._would_overflow(len(posts)):
                raise QueueFullError(self.retry_after_seconds)
            self._jobs.append(job)
            self._waiting_rows += len(posts)
            self._changed.notify()
        return job.future

    def drain(self, timeout_seconds: float) -> bool:
        """Accept nothing more, finish all that was accepted; whether that was done in time."""
        end = time.monotonic() + timeout_seconds
        with self._changed:
            self._accepting = False
            self._changed.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(end - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._threads)

    def _would_overflow(self, rows: int) -> bool:
        waiting = self._waiting_rows + rows
        rate = self._rows_per_second
        patience = _PATIENCE * self._settings.timeout_seconds
        is_late = rate is not None and waiting / rate > patience
        return waiting > self._settings.max_waiting_rows or is_late

    def _score_forever(self) -> None:
        while parts := self._take():
            started = time.monotonic()
            rows = sum(len(part.posts) for part in parts)
            self._metrics.batch_rows.observe(rows)
            with self._metrics.scoring_seconds.time():
                scored = self._score(parts)
            self._scored.put(scored)
            self._learn_rate(rows, time.monotonic() - started)
        self._scored.put(None)

    def _take(self) -> list[_Part]:
        """Wait for posts and return a batch; nothing once all is done and no more is accepted."""
        limit = self._settings.max_batch_rows
        with self._changed:
            while True:
                if not self._jobs:
                    self._changed.wait_for(lambda: self._jobs or not self._accepting)
                    # All was idle: others may be about to ask as well.
                    self._changed.wait_for(
                        lambda: self._waiting_rows >= limit or not self._accepting,
                        timeout=self._settings.max_wait_ms / 1000,
                    )
                parts = self._cut(limit)
                if parts or not (self._jobs or self._accepting):
                    return parts

    def _cut(self, limit: int) -> list[_Part]:
        """Take up to ``limit`` posts from the queue, in order."""
        parts: list[_Part] = []
        room = limit
        while self._jobs and room:
            job = self._jobs[0]
            if not job.taken and not job.future.set_running_or_notify_cancel():
                self._jobs.popleft()
                self._waiting_rows -= len(job.posts)
                continue
            posts = job.posts[job.taken : job.taken + room]
            parts.append(_Part(job, posts))
            job.taken += len(posts)
            room -= len(posts)
            self._waiting_rows -= len(posts)
            if job.taken == len(job.posts):
                self._jobs.popleft()
        return parts

    def _score(self, parts: Sequence[_Part]) -> list[_Scored]:
        """Score a batch; if that fails and it has several requests, each of them alone."""
        posts = [post for part in parts for post in part.posts]
        try:
            answers = self._judge.judge(posts, now=self._now)
        except Exception as error:  # whatever a model may raise: the server goes on
            self._metrics.scoring_failures.inc()
            log_failure("scoring failed", error, rows=len(posts))
            if len(parts) > 1:
                return [scored for part in parts for scored in self._score([part])]
            failed = failed_answers(posts, time=self._now())
            return [_Scored(parts[0], failed, ScoringError("the model could not score this"))]
        scored = []
        first = 0
        for part in parts:
            scored.append(_Scored(part, answers[first : first + len(part.posts)]))
            first += len(part.posts)
        return scored

    def _learn_rate(self, rows: int, seconds: float) -> None:
        # A small batch says little about how fast full ones go.
        if 2 * rows < self._settings.max_batch_rows:
            return
        rate = rows / max(seconds, 1e-6)
        before = self._rows_per_second
        self._rows_per_second = (
            rate if before is None else _RATE_MEMORY * before + (1 - _RATE_MEMORY) * rate
        )

    def _store_forever(self) -> None:
        while (scored := self._scored.get()) is not None:
            self._store(scored)

    def _store(self, scored: Sequence[_Scored]) -> None:
        """Store a batch in one transaction, then resolve its requests."""
        answers = [answer for one in scored for answer in one.answers]
        failure: Exception | None = None
        try:
            with self._metrics.store_seconds.time():
                self._intake.record(answers)
        except Exception as error:  # whatever a database may raise: nothing is answered
            self._metrics.store_failures.inc()
            log_failure("storing failed", error, rows=len(answers))
            is_down = isinstance(error, StorageError) and not isinstance(error, RowError)
            if len(scored) > 1 and not is_down:
                # Not the storage but some row is at fault: it must not fail others' requests.
                for one in scored:
                    self._store([one])
                return
            self._store_failed_at = time.monotonic()
            failure = StoringError("the answers could not be stored")
        else:
            self._store_failed_at = None
            self._metrics.count_decisions(answers)
        for one in scored:
            _finish(one, failure)


def _finish(scored: _Scored, failure: Exception | None) -> None:
    """Note a part's answers, and resolve its request if it was the last part."""
    job = scored.part.job
    job.answers.extend(scored.answers)
    job.failure = job.failure or failure or scored.failure
    if len(job.answers) == len(job.posts):
        if job.failure is None:
            job.future.set_result(tuple(job.answers))
        else:
            job.future.set_exception(job.failure)
