"""Bulk scoring: a file of any size in fixed shards, each written once, whole or not at all."""
