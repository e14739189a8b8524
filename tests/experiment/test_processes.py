"""Two real processes (gloo) do the same as one, and write one set of files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.tiny_experiments import phase_keys, write_experiment

from evenhand.config.load import load_experiment
from evenhand.core.predictions import read_predictions
from evenhand.experiment.runner import run_experiment


@pytest.mark.slow
def test_two_processes_are_as_good_as_one(tmp_path: Path, tiny_llama: Path) -> None:
    # Adam turns rounding errors of gradients near zero into steps of the size of the rate.
    path = write_experiment(
        tmp_path, tiny_llama, defaults=phase_keys(tiny_llama, learning_rate=0.001)
    )
    halved = "phases.*.per_device_train_batch_size=2"
    two = tmp_path / "two"
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29613"]
    command += ["-m", "evenhand", "run", str(path), "--out", str(two), "--set", halved, "--json"]
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "EVENHAND_QUIET": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "tiny"  # one process speaks
    assert done.stderr.count("phase 1 of 2: small") == 1

    one = tmp_path / "one"
    run_experiment(load_experiment(path), one)
    for phase in ("small", "large"):
        here, there = (folder / "runs" / phase for folder in (one, two))
        training = json.loads((there / "training.json").read_text())
        assert (training["processes"], training["effective_batch_size"]) == (2, 4)
        assert json.loads((there / "manifest.json").read_text())["device"]["processes"] == 2
        expected = load_file(here / "adapter" / "adapter_model.safetensors")
        found = load_file(there / "adapter" / "adapter_model.safetensors")
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5)
        for name in ("validation", "test"):
            frames = [
                read_predictions(run / "evaluations" / name / "predictions.parquet").frame
                for run in (here, there)
            ]
            assert frames[1]["id"].tolist() == frames[0]["id"].tolist()
            np.testing.assert_allclose(frames[1]["score"], frames[0]["score"], atol=1e-4)
    assert len(json.loads((two / "production.json").read_text())) == 1
    assert (two / "summary.md").is_file()
