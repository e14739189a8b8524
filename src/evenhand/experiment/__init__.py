"""The ordered stages, resumable: train, evaluate, choose, validate, summarise."""
