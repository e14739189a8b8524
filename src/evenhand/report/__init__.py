"""Reports: the experiment summary, its comparison table, and the digest for a terminal."""
