from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evenhand.data.fingerprint import fingerprint, normalise


def test_what_counts_as_the_same_text():
    same = ["Hello  @Ann, see https://a.example/x", " hello <user>, see\twww.b.example "]
    assert len({fingerprint(text) for text in same}) == 1
    assert fingerprint("ｆｕｌｌ ﬁt STRASSE") == fingerprint("full fit straße")
    assert fingerprint("mail a@b") != fingerprint("mail <user>")
    assert fingerprint("I like [group]") != fingerprint("I hate [group]")
    assert len(fingerprint("x")) == 32


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(text):
    assert normalise(normalise(text)) == normalise(text)
