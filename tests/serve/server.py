"""A server of the fake model, for tests that stop or kill a process.

``python -m tests.serve.server DATABASE SECONDS_A_BATCH '{"max_batch_rows": 4}'``
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence

import numpy as np
from tests.serve.conftest import (
    READINESS,
    fake_scorer,
    make_intake,
    make_release,
    make_settings,
)

from evenhand.core.errors import EvenhandError
from evenhand.serve.app import create_app
from evenhand.serve.running import bind, serve_forever
from evenhand.serve.service import Service
from evenhand.watch.store.database import open_database


def main() -> int:
    path, seconds, limits = sys.argv[1:]
    settings = make_settings(**json.loads(limits))
    database = open_database(f"sqlite:///{path}")
    release = make_release(temperature=None)

    def scorer(texts: Sequence[str]) -> np.ndarray:
        time.sleep(float(seconds))
        return fake_scorer(texts)

    intake = make_intake(database, release, settings)
    service = Service(release, scorer, database, intake, READINESS, keyless=True)
    app = create_app(service, settings, with_review=False, with_monitor=False)
    try:
        serve_forever(app, bind("127.0.0.1", 0), settings=settings)
    except EvenhandError as error:
        print(error.render(), file=sys.stderr)
        return error.exit_code
    finally:
        database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
