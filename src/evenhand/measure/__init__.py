"""Measuring: metrics with intervals, slices and baselines, from predictions to an evaluation."""
