"""Data files in, validated rows out: readers, corpora, splits, descriptions."""
