"""A server of a tiny fake model on a real database."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from evenhand.config.production_schema import ProductionConfig
from evenhand.core.decisions import Binding
from evenhand.core.production import Answer, Release
from evenhand.serve.app import create_app
from evenhand.serve.running import make_server
from evenhand.serve.service import Readiness, Service
from evenhand.watch.store.database import Database, open_database
from evenhand.watch.store.intake import Intake
from evenhand.watch.store.proposer import load_proposer

PARTS = ("scorer", "intake", "release", "keyless", "readiness")
READINESS = Readiness(
    golden_rows=24,
    golden_max_difference=0.0,
    golden_tolerance=0.001,
    adapter_difference=0.4,
    adapter_proof="p(hate) differs by up to 0.4 with the adapter switched off",
)


def fake_score(text: str) -> float:
    """p(hate) of a post: the number that it names, 0.9 where it says hate, else 0.1."""
    named = re.search(r"score=([0-9.]+)", text)
    if named is not None:
        return float(named[1])
    return 0.9 if "hate" in text else 0.1


def fake_scorer(texts: Sequence[str]) -> np.ndarray:
    return np.array([fake_score(text) for text in texts])


def make_release(**changes: Any) -> Release:
    values: dict[str, Any] = {
        "model": "tiny",
        "binding": Binding(run="1" * 64, adapter="a" * 64, prompt="c" * 64, base="b" * 64),
        "threshold": 0.6,
        "temperature": 2.0,
        "outcome": "PASS",
        "deployment": None,
    }
    return Release(**{**values, **changes})


def make_settings(**serve: Any) -> ProductionConfig:
    return ProductionConfig.model_validate({"serve": {"max_wait_ms": 1.0, **serve}})


def make_intake(database: Database, release: Release, settings: ProductionConfig) -> Intake:
    intake = Intake(
        database,
        release,
        settings,
        load_proposer("terms", settings.watch.groups),
        rng=np.random.default_rng(7),
        text_key=None,
    )
    intake.start(datetime(2026, 1, 1, tzinfo=UTC), reference={}, versions={})
    return intake


class BrokenIntake:
    """Stores nothing; raises what it was given."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def record(self, answers: Sequence[Answer]) -> None:  # noqa: ARG002
        raise self.error


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(f"sqlite:///{tmp_path / 'production.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture
def make_service(database: Database) -> Callable[..., Service]:
    """``make_service(settings, scorer=...)``: a service with any of its parts replaced."""

    def make(settings: ProductionConfig, **changes: Any) -> Service:
        release = changes.pop("release", make_release())
        parts: dict[str, Any] = {
            "release": release,
            "scorer": fake_scorer,
            "database": database,
            "intake": None,
            "readiness": READINESS,
            "keyless": True,
            **changes,
        }
        parts["intake"] = parts["intake"] or make_intake(database, release, settings)
        return Service(**parts)

    return make


class Live:
    """A real uvicorn on loopback, in a thread of its own."""

    def __init__(self, app: FastAPI, settings: ProductionConfig) -> None:
        self.server = make_server(app, settings)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True
        )

    def __enter__(self) -> Live:
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.handle_exit(signal.SIGTERM, None)
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def live(make_service: Callable[..., Service]) -> Iterator[Callable[..., Live]]:
    """``live(max_request_rows=2).url``: a real server with these limits."""
    with ExitStack() as stack:

        def start(**changes: Any) -> Live:
            parts = {name: changes.pop(name) for name in PARTS if name in changes}
            settings = make_settings(**changes)
            app = create_app(
                make_service(settings, **parts), settings, with_review=False, with_monitor=False
            )
            return stack.enter_context(Live(app, settings))

        yield start


@pytest.fixture
def client(make_service: Callable[..., Service]) -> Iterator[Callable[..., TestClient]]:
    """``client(max_request_rows=2, scorer=...)``: a client of a started app with these limits."""
    with ExitStack() as stack:

        def start(**changes: Any) -> TestClient:
            parts = {name: changes.pop(name) for name in PARTS if name in changes}
            settings = make_settings(**changes)
            app = create_app(
                make_service(settings, **parts), settings, with_review=False, with_monitor=False
            )
            http = TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False)
            return stack.enter_context(http)

        yield start
