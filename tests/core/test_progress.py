from __future__ import annotations

import io

import pytest

from evenhand.core.progress import format_duration, progress


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(total: int, *, seconds_per_row: float) -> list[str]:
    clock, stream = FakeClock(), io.StringIO()
    with progress(total, label="train", stream=stream, clock=clock) as advance:
        for _ in range(total):
            clock.now += seconds_per_row
            advance(1)
    return stream.getvalue().splitlines()


def test_plain_line_has_count_rate_and_time_left() -> None:
    clock, stream = FakeClock(), io.StringIO()
    with progress(384, label="train", stream=stream, clock=clock) as advance:
        clock.now = 40.0
        advance(128, loss=0.31256, phase="default")
    assert stream.getvalue() == (
        "train  128/384 rows  33%  3.2 rows/s  1m20s left  loss 0.3126  phase default\n"
    )


@pytest.mark.parametrize(
    ("total", "seconds_per_row", "expected"),
    [
        pytest.param(1000, 0.001, 1, id="a second of work: the last line only"),
        pytest.param(1000, 0.1, 10, id="minutes: each tenth"),
        pytest.param(1000, 6.0, 100, id="hours: each minute"),
    ],
)
def test_lines_neither_flood_nor_fall_silent(
    total: int, seconds_per_row: float, expected: int
) -> None:
    lines = lines_of(total, seconds_per_row=seconds_per_row)
    assert len(lines) == expected
    assert lines[-1].startswith("train  1000/1000 rows  100%")


def test_nothing_to_do_is_not_a_division_by_zero() -> None:
    stream = io.StringIO()
    with progress(0, label="score", stream=stream, clock=FakeClock()) as advance:
        advance(0)
    assert stream.getvalue().startswith("score  0/0 rows  100%")


@pytest.mark.parametrize(("name", "value"), [("EVENHAND_QUIET", "1"), ("RANK", "1")])
def test_silent_when_asked_and_in_later_processes(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert lines_of(10, seconds_per_row=10.0) == []


def test_terminal_gets_a_bar() -> None:
    stream = Terminal()
    with progress(4, label="score", unit="posts", stream=stream) as advance:
        advance(4, loss=0.5)
    assert "score" in stream.getvalue()
    assert "4/4" in stream.getvalue()
    assert "loss 0.5" in stream.getvalue()


def test_duration_rounds_up_into_the_next_unit() -> None:
    assert [format_duration(s) for s in (0, 59.4, 59.6, 3599.6)] == ["0s", "59s", "1m00s", "1h00m"]
