from __future__ import annotations

import io
import json
import urllib.error
import urllib.request

import pytest

from evenhand.core.errors import ConfigError, DataError, StorageError
from evenhand.data.fetch import TermsError, download, fetch_corpus, find_corpus

HATECHECK = "functionality,case_id,test_case,label_gold,target_ident,templ_id\n"
ROW = "derog,1,I hate [group],hateful,women,1\n"


@pytest.fixture
def mirror(tmp_path):
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "test_suite_cases.csv").write_text(HATECHECK + ROW)
    return folder


def fetch(out, mirror, **options):
    return fetch_corpus(
        find_corpus("hatecheck"), out, **{"accept_terms": True, "mirror": mirror, **options}
    )


def test_terms_come_first(tmp_path, mirror):
    with pytest.raises(TermsError) as caught:
        fetch(tmp_path / "out", mirror, accept_terms=False)
    assert caught.value.exit_code == 2
    assert "CC BY 4.0" in caught.value.render()
    assert "--accept-terms" in caught.value.render()
    assert not (tmp_path / "out").exists()


def test_checksums_are_recorded_then_verified(tmp_path, mirror):
    out = tmp_path / "out"
    record = fetch(out, mirror)
    assert json.loads((out / "fetched.json").read_text()) == record
    assert record["terms_accepted"] is True
    assert fetch(out, tmp_path / "gone") == record  # all there and unchanged: nothing is fetched
    (out / "test_suite_cases.csv").unlink()
    again = fetch(out, mirror)
    assert again["files"] == record["files"]
    (out / "test_suite_cases.csv").unlink()
    (mirror / "test_suite_cases.csv").write_text(HATECHECK + ROW + ROW.replace(",1", ",2", 1))
    with pytest.raises(DataError, match=r"fetched\.json") as caught:
        fetch(out, mirror)
    assert "at the first fetch" in caught.value.render()
    assert json.loads((out / "fetched.json").read_text()) == again


def test_structure_is_checked_and_nothing_is_left_behind(tmp_path, mirror):
    (mirror / "test_suite_cases.csv").write_text("<html>sign in</html>")
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "out", mirror)
    assert "the fetched hatecheck" in caught.value.render()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mirror"]


def test_a_mirror_without_a_file(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        fetch(tmp_path / "out", tmp_path / "empty")
    assert caught.value.problems[0].place == "test_suite_cases.csv"


def test_folders_with_other_content_are_left_alone(tmp_path, mirror):
    with pytest.raises(ConfigError):
        fetch(tmp_path, mirror)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "fetched.json").write_text("[]")
    with pytest.raises(StorageError, match="not a record"):
        fetch(tmp_path / "odd", mirror)


def test_downloads_go_to_the_corpus_addresses(tmp_path, write_hatexplain):
    source = write_hatexplain(tmp_path / "source", posts=3)
    asked = []

    def copy(url, target):
        asked.append(url)
        target.write_bytes((source / url.rsplit("/", 1)[1]).read_bytes())

    record = fetch_corpus(
        find_corpus("hatexplain"), tmp_path / "out", accept_terms=True, download=copy
    )
    assert len(asked) == 2
    assert all(url.startswith("https://") for url in asked)
    assert record["files"]["dataset.json"]["origin"] == asked[0]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (urllib.error.HTTPError("u", 403, "Forbidden", None, io.BytesIO()), "answered 403"),
        (urllib.error.URLError("no route"), "cannot be reached: no route"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_download_failures_say_what_to_do(tmp_path, monkeypatch, fault, message):
    def refuse(url, timeout):
        assert url.startswith("https://")
        assert timeout > 0
        raise fault

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(StorageError, match=message) as caught:
        download("https://example.org/file", tmp_path / "file")
    assert "--from" in caught.value.render()


def test_download_writes_what_it_receives(tmp_path, monkeypatch):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: io.BytesIO(b"data"))
    download("https://example.org/file", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"data"


def test_unknown_corpus():
    with pytest.raises(ConfigError) as caught:
        find_corpus("toxygen")
    assert 'did you mean "toxigen"' in caught.value.render()
