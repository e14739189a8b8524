"""Foundations that every other layer may use: errors, records, files, registries, seeds."""
