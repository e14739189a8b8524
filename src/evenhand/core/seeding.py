"""Seeds: one number in the configuration, one independent stream per purpose."""

from __future__ import annotations

import numpy as np

from evenhand.core.paths import sha256_text


def rng_for(seed: int, purpose: str) -> np.random.Generator:
    """Return a generator that depends on the seed and on the purpose's name only.

    >>> bool(rng_for(7, "bootstrap").random() == rng_for(7, "bootstrap").random())
    True
    """
    return np.random.default_rng([seed, int(sha256_text(purpose)[:8], 16)])
