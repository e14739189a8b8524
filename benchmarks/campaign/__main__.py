"""``python -m benchmarks.campaign collect | render | results | speed``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.campaign.catalogue import (
    CONFIGS,
    EXPERIMENTS,
    PAGE,
    PROJECT,
    README,
    RECORD,
    places,
)
from benchmarks.campaign.collect import collect, with_earlier
from benchmarks.campaign.render import write_page
from benchmarks.campaign.speed import measure_speed

from evenhand.core.paths import read_json, write_text


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.campaign", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("collect", "read the experiment folders into the record; what is not here stays"),
        ("render", "write the page, and README's table, from the record"),
        ("results", "both"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("--experiments", type=Path, default=EXPERIMENTS)
        one.add_argument("--data", type=Path, default=PROJECT.parent / "shared" / "data")
        one.add_argument("--record", type=Path, default=RECORD)
        one.add_argument("--page", type=Path, default=PAGE)
        one.add_argument("--readme", type=Path, default=README)
    speed = commands.add_parser(
        "speed", help="measure a run's training and scoring: rows a second, peak memory"
    )
    speed.add_argument("runs", type=Path, nargs="+", help="run folders of the campaign")
    speed.add_argument(
        "--posts", type=Path, required=True, help="a file of labelled posts to train on and score"
    )
    speed.add_argument("--experiments", type=Path, default=EXPERIMENTS)
    options = parser.parse_args(arguments)
    if options.command == "speed":
        measure_speed(options.runs, posts=options.posts, experiments=options.experiments)
        return
    if options.command in ("collect", "results"):
        found = places(CONFIGS, options.experiments)
        record = collect(found, experiments=options.experiments, data=options.data)
        if options.record.is_file():
            record = with_earlier(record, read_json(options.record))
        write_text(options.record, json.dumps(record, indent=1, allow_nan=False) + "\n")
        print(f"wrote {options.record}")
    if options.command in ("render", "results"):
        write_page(read_json(options.record), options.page, options.readme)
        print(f"wrote {options.page} and the table of answers in {options.readme}")


if __name__ == "__main__":
    main()
