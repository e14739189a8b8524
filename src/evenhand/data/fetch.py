"""Public corpora: their terms, download or local mirror, structure and checksums."""

from __future__ import annotations

import datetime
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.core.errors import ConfigError, DataError, EvenhandError, Problem, StorageError
from evenhand.core.paths import atomic_dir, read_json, sha256_file, write_json
from evenhand.core.registry import suggest
from evenhand.data.folders import replaceable_folder
from evenhand.data.hatexplain import DATASET_FILE, DIVISIONS_FILE, read_hatexplain
from evenhand.data.sources import read_dataset
from evenhand.data.toxigen import read_toxigen

RECORD_FILE = "fetched.json"
TIMEOUT_S = 60.0

Download = Callable[[str, Path], None]


class TermsError(EvenhandError):
    """A corpus's terms were shown and not accepted."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class PublicCorpus:
    """A public corpus: what it is, on which terms, and where its files are.

    Attributes:
        urls: file name here -> address.
        check: reads a fetched folder and raises DataError where its structure is not as expected.
    """

    name: str
    homepage: str
    terms: tuple[str, ...]
    urls: Mapping[str, str]
    check: Callable[[Path], object]


_HATEXPLAIN = "https://raw.githubusercontent.com/hate-alert/HateXplain/master/Data/"
_TOXIGEN = "https://huggingface.co/datasets/toxigen/toxigen-data/resolve/main/annotated/"
_HATECHECK = "https://raw.githubusercontent.com/paul-rottger/hatecheck-data/main/"

CORPORA: Mapping[str, PublicCorpus] = {
    corpus.name: corpus
    for corpus in (
        PublicCorpus(
            name="hatexplain",
            homepage="https://github.com/hate-alert/HateXplain",
            terms=(
                "licence: MIT (the repository), CC BY 4.0 (its dataset page); name the authors",
                "cite: Mathew et al., HateXplain, AAAI 2021",
                "contains slurs and hate aimed at real people; do not try to identify authors",
            ),
            urls={name: _HATEXPLAIN + name for name in (DATASET_FILE, DIVISIONS_FILE)},
            check=read_hatexplain,
        ),
        PublicCorpus(
            name="toxigen",
            homepage="https://github.com/microsoft/TOXIGEN",
            terms=(
                "licence: stated differently in different places (MIT, CDLA-Permissive 2.0, "
                "Apache 2.0); read the homepage before you share the data",
                "access: the authors ask every user to fill in the form that the homepage links",
                "use: research on detecting hate speech; cite Hartvigsen et al., ToxiGen, ACL 2022",
            ),
            urls={
                f"annotated_{split}.parquet": f"{_TOXIGEN}{split}-00000-of-00001.parquet"
                for split in ("train", "test")
            },
            check=lambda folder: read_toxigen([folder], toxicity_threshold=3.0),
        ),
        PublicCorpus(
            name="hatecheck",
            homepage="https://github.com/paul-rottger/hatecheck-data",
            terms=(
                "licence: CC BY 4.0; name the authors",
                "cite: Röttger et al., HateCheck, ACL 2021",
                "use: a test suite; do not train on it",
            ),
            urls={"test_suite_cases.csv": _HATECHECK + "test_suite_cases.csv"},
            check=lambda folder: read_dataset(folder / "test_suite_cases.csv", format="hatecheck"),
        ),
    )
}


def find_corpus(name: str) -> PublicCorpus:
    """Return a known corpus.

    Raises:
        ConfigError: the name is not known.
    """
    if name not in CORPORA:
        message = f'"{name}" is not known{suggest(name, CORPORA)}; corpora: {", ".join(CORPORA)}'
        raise ConfigError("the command", [Problem("CORPUS", message)])
    return CORPORA[name]


def render_terms(corpus: PublicCorpus) -> str:
    """Return a corpus's terms as text."""
    lines = [f"{corpus.name} ({corpus.homepage})", *(f"  {term}" for term in corpus.terms)]
    return "\n".join(lines)


def download(url: str, target: Path) -> None:
    """Download an address to a file.

    Raises:
        StorageError: the address cannot be reached or refuses.
    """
    hint = "download it by hand on the corpus's own terms and name the folder with --from"
    try:
        with (
            urllib.request.urlopen(url, timeout=TIMEOUT_S) as response,  # https: see CORPORA
            target.open("wb") as stream,
        ):
            while block := response.read(1 << 20):
                stream.write(block)
    except urllib.error.HTTPError as error:
        raise StorageError(f"{url} answered {error.code} {error.reason}", hint=hint) from error
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        reason = getattr(error, "reason", error)
        raise StorageError(f"{url} cannot be reached: {reason}", hint=hint) from error


def fetch_corpus(
    corpus: PublicCorpus,
    out: Path,
    *,
    accept_terms: bool,
    mirror: Path | None = None,
    download: Download = download,
) -> dict[str, Any]:
    """Fetch a corpus into a folder, check it, and return its record (``fetched.json``).

    The sha256 of each file is recorded at the first fetch and must be the same at every later
    one. Files that are there already and match are not fetched again. The folder is swapped in
    whole, after all checks.

    Raises:
        TermsError: the terms were not accepted.
        DataError: a file is missing from the mirror, has changed, or has the wrong structure.
        ConfigError: the folder exists and is something else.
        StorageError: a download or the disk failed.
    """
    if not accept_terms:
        raise TermsError(
            f"the terms of {render_terms(corpus)}",
            hint="read them, then run the same command with --accept-terms",
        )
    known = _known_checksums(out)
    if known and _checksums(out, corpus) == known:
        _check(corpus, out)
        return read_json(out / RECORD_FILE)
    with atomic_dir(replaceable_folder(out, RECORD_FILE)) as staging:
        for name, url in corpus.urls.items():
            if mirror is None:
                download(url, staging / name)
            else:
                _copy(mirror / name, staging / name)
        found = _checksums(staging, corpus)
        _compare(out, known, found)
        _check(corpus, staging)
        record = {
            "corpus": corpus.name,
            "homepage": corpus.homepage,
            "terms": list(corpus.terms),
            "terms_accepted": True,
            "fetched_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "files": {
                name: {
                    "origin": url if mirror is None else str(mirror / name),
                    "bytes": (staging / name).stat().st_size,
                    "sha256": found[name],
                }
                for name, url in corpus.urls.items()
            },
        }
        write_json(staging / RECORD_FILE, record)
    return record


def _check(corpus: PublicCorpus, folder: Path) -> None:
    try:
        corpus.check(folder)
    except DataError as error:
        # Not the path of the staging folder, which is gone when the user reads this.
        raise DataError(
            f"the fetched {corpus.name}",
            error.problems,
            hint=error.hint,
            consequence="nothing was kept",
        ) from error


def _known_checksums(out: Path) -> dict[str, str]:
    record = out / RECORD_FILE
    if not record.is_file():
        return {}
    try:
        return {name: entry["sha256"] for name, entry in read_json(record)["files"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{record} is not a record of fetched files",
            hint="choose another folder, or remove this one to fetch anew",
        ) from error


def _checksums(folder: Path, corpus: PublicCorpus) -> dict[str, str]:
    return {name: sha256_file(folder / name) for name in corpus.urls if (folder / name).is_file()}


def _compare(out: Path, known: Mapping[str, str], found: Mapping[str, str]) -> None:
    problems = [
        Problem(name, f"sha256 is {found.get(name)}, was {checksum} at the first fetch")
        for name, checksum in known.items()
        if found.get(name) != checksum
    ]
    if problems:
        raise DataError(
            str(out / RECORD_FILE),
            problems,
            hint="the corpus has changed; fetch it into another --out to take the new version",
            consequence="the folder was left as it is",
        )


def _copy(source: Path, target: Path) -> None:
    try:
        target.write_bytes(source.read_bytes())
    except FileNotFoundError:
        raise DataError(str(source.parent), [Problem(source.name, "is not there")]) from None
