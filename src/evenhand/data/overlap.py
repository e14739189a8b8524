"""Rows that two data sets share: word for word, and nearly.

Nearly means a Jaccard similarity of the texts' character 5-shingles of at least the threshold.
MinHash with 128 permutations and banding (Broder 1997; Leskovec, Rajaraman and Ullman 2020,
chapter 3) proposes pairs, and each is verified on the shingles themselves. A paraphrase that keeps
few 5-shingles is not found, nor is a short post inside a long one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from datasketch import MinHash, MinHashLSH

from evenhand.core.records import Dataset, Row
from evenhand.data.fingerprint import normalise

SHINGLE_CHARACTERS = 5
PERMUTATIONS = 128
NEAR = 0.8
"""The least Jaccard similarity of near duplicates, unless another is asked for."""

# Odd, fixed and far apart: a multilinear hash of five code points whose high half is well mixed.
_FACTORS = np.array(
    [0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0xD6E8FEB86659FD93,
     0xA0761D6478BD642F],
    dtype=np.uint64,
)  # fmt: skip
_MISSED_AT_THRESHOLD = 0.001


@dataclass(frozen=True, slots=True)
class Match:
    """One text of the training set with the text of the evaluation set that equals or resembles it.

    Attributes:
        train: ids of the training rows with the one text, in file order.
        evaluation: ids of the evaluation rows with the other, in file order.
        similarity: Jaccard similarity of their character 5-shingles; 1 for equal texts.
    """

    train: tuple[str, ...]
    evaluation: tuple[str, ...]
    similarity: float

    @property
    def pairs(self) -> Iterator[tuple[str, str]]:
        """Yield each (training row, evaluation row)."""
        return ((one, other) for other in self.evaluation for one in self.train)


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two data sets share; ``near`` holds no texts that are equal.

    Attributes:
        n_train: rows of the training set.
        n_evaluation: rows of the evaluation set.
        threshold: the least similarity of ``near``.
    """

    exact: tuple[Match, ...]
    near: tuple[Match, ...]
    n_train: int
    n_evaluation: int
    threshold: float

    @property
    def exact_rows(self) -> tuple[str, ...]:
        """The evaluation rows whose text is in the training set, by id."""
        return tuple(row for match in self.exact for row in match.evaluation)

    @property
    def near_rows(self) -> tuple[str, ...]:
        """The evaluation rows that only resemble a training row, by id."""
        exact = set(self.exact_rows)
        near = dict.fromkeys(row for match in self.near for row in match.evaluation)
        return tuple(row for row in near if row not in exact)


@dataclass(frozen=True)
class Texts:
    """A data set's distinct normalised texts, prepared once for several comparisons."""

    rows: Sequence[Row] = field(repr=False)

    @cached_property
    def members(self) -> dict[str, tuple[Row, ...]]:
        """The rows of each normalised text, both in file order."""
        found: defaultdict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            found[normalise(row.text)].append(row)
        return {text: tuple(rows) for text, rows in found.items()}

    @cached_property
    def shingles(self) -> list[np.ndarray]:
        """The sorted distinct hashes (uint64) of each text's character 5-shingles."""
        return [_shingles(text) for text in self.members]

    @cached_property
    def sketches(self) -> list[MinHash]:
        """The MinHash of each text."""
        words = ((one >> np.uint64(32)).tolist() for one in self.shingles)
        return MinHash.bulk(words, num_perm=PERMUTATIONS, hashfunc=_same)

    def ids(self, text: str) -> tuple[str, ...]:
        """Return the ids of the rows with a normalised text."""
        return tuple(row.id for row in self.members[text])


def overlaps(
    train: Dataset | Texts, evaluation: Dataset | Texts, *, threshold: float = NEAR
) -> Overlap:
    """Return the texts that two data sets share, exactly (case, width, spacing apart) and nearly.

    A pair at the threshold is missed with a probability of at most 0.1%. The result depends on
    the rows alone.

    Raises:
        ValueError: ``threshold`` is not in (0, 1].

    >>> train = Dataset("train", (Row("a", "All of them are kind people, I think."),))
    >>> test = Dataset("test", (Row("x", "all of THEM are kind people, I think."), Row("y", "No.")))
    >>> overlaps(train, test).exact
    (Match(train=('a',), evaluation=('x',), similarity=1.0),)
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}; it is a similarity above 0 and at most 1")
    ours, theirs = _texts(train), _texts(evaluation)
    near = tuple(_near(ours, theirs, threshold))
    return Overlap(exact_matches(ours, theirs), near, len(ours.rows), len(theirs.rows), threshold)


def exact_matches(train: Dataset | Texts, evaluation: Dataset | Texts) -> tuple[Match, ...]:
    """Return the texts that two data sets share word for word, as :func:`overlaps` does."""
    ours, theirs = _texts(train), _texts(evaluation)
    return tuple(
        Match(ours.ids(text), theirs.ids(text), 1.0)
        for text in theirs.members
        if text in ours.members
    )


def _near(ours: Texts, theirs: Texts, threshold: float) -> Iterator[Match]:
    if not ours.members or not theirs.members:
        return
    index = MinHashLSH(num_perm=PERMUTATIONS, params=_bands(threshold))
    for number, sketch in enumerate(ours.sketches):
        index.insert(number, sketch, check_duplication=False)
    names = list(ours.members)
    for text, shingles, sketch in zip(
        theirs.members, theirs.shingles, theirs.sketches, strict=True
    ):
        for number in sorted(index.query(sketch)):
            if names[number] == text:
                continue
            similarity = _jaccard(ours.shingles[number], shingles)
            if similarity >= threshold:
                yield Match(ours.ids(names[number]), theirs.ids(text), similarity)


def _texts(data: Dataset | Texts) -> Texts:
    return data if isinstance(data, Texts) else Texts(data.rows)


def _shingles(text: str) -> np.ndarray:
    """Hash all windows of five characters at once; a shorter text is one window, padded."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if len(codes) < SHINGLE_CHARACTERS:
        codes = np.pad(codes, (0, SHINGLE_CHARACTERS - len(codes)))
    windows = np.lib.stride_tricks.sliding_window_view(codes, SHINGLE_CHARACTERS)
    return np.unique((windows * _FACTORS).sum(axis=1, dtype=np.uint64))


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def _bands(threshold: float) -> tuple[int, int]:
    """Return (bands, rows a band) with the longest bands that hardly miss a pair at the threshold.

    A pair of similarity s becomes a candidate with probability 1 - (1 - s^rows)^bands.
    """
    for rows in (32, 16, 8, 4, 2):
        bands = PERMUTATIONS // rows
        if (1 - threshold**rows) ** bands <= _MISSED_AT_THRESHOLD:
            return bands, rows
    return PERMUTATIONS, 1


def _same(value: int) -> int:
    """Return a hash as it is: the shingles are hashed already."""
    return value
