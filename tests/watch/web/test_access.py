"""Who gets in: login, lock-out, roles, forms of other sites, headers, errors as pages."""

from __future__ import annotations

import asyncio
import threading

import anyio.to_thread
import httpx
import pytest
from sqlalchemy.exc import OperationalError
from tests.watch.web.made_up_site import PASSWORD, MadeUpSite

from evenhand.core.errors import StorageError
from evenhand.core.records import Row
from evenhand.watch.reviewing.golden import add_golden
from evenhand.watch.reviewing.lock_out import LoginError
from evenhand.watch.reviewing.users import deactivate, hash_password
from evenhand.watch.web import labelling, own_settings, signing_in
from evenhand.watch.web.routes import PAGES

FOR_ADMINS = [page for page in PAGES if page.role == "admin"]
WITH_LOGIN = [page for page in PAGES if page.role != "anyone"]
CHANGING = [page for page in PAGES if page.method == "POST"]


def is_page(answer: httpx.Response) -> bool:
    return answer.text.startswith("<!doctype html>") and "<h1" in answer.text


def test_without_a_login_every_page_leads_to_the_login(site: MadeUpSite) -> None:
    site.add_posts(["a post that nobody may see"])
    client = site.client().client
    for page in WITH_LOGIN:
        answer = client.request(page.method, f"/review{page.path}", data={"csrf": "x"})
        assert answer.url.path == "/review/login", page.path
        assert "nobody may see" not in answer.text


def test_a_login_and_a_logout(site: MadeUpSite) -> None:
    person = site.signed_in("ann")
    assert "Nothing waits for you" in person.get("/").text
    token = person.client.cookies["evenhand_review"]
    assert person.post("/logout").url.path == "/review/login"
    person.client.cookies.set("evenhand_review", token, path="/review")
    assert person.get("/").url.path == "/review/login"


def test_a_login_ends_with_its_hours(site: MadeUpSite) -> None:
    person = site.signed_in("ann")
    site.clock.forward(hours=site.settings.review.login_hours, minutes=1)
    assert person.get("/").url.path == "/review/login"


def test_a_deactivated_person_is_out_at_once(site: MadeUpSite) -> None:
    person = site.signed_in("ann")
    with site.database.session() as session:
        deactivate(session, "ann", now=site.clock())
    assert person.get("/").url.path == "/review/login"


def test_the_cookie_is_for_these_pages_alone(site: MadeUpSite) -> None:
    site.add_person("ann")
    for secure in (False, True):
        person = site.client(secure=secure)
        person.get("/login")
        person.client.follow_redirects = False
        header = person.post("/login", name="ann", password=PASSWORD).headers["set-cookie"].lower()
        assert "httponly" in header
        assert "samesite=strict" in header
        assert "path=/review" in header
        assert ("secure" in header) is secure


def test_wrong_names_and_passwords_read_alike_and_lock_the_name(site: MadeUpSite) -> None:
    site.add_person("ann")
    person = site.client()
    told = {
        person.log_in(name, "wrong password").text.count("The name or the password is wrong.")
        for name in ("ann", "nobody", "\0", "x" * 100)
    }
    assert told == {1}
    statuses = [person.log_in("ann", "wrong password").status_code for _ in range(6)]
    assert statuses[-1] == 429
    refused = person.log_in("ann")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert is_page(refused)
    site.clock.forward(minutes=20)
    assert person.log_in("ann").status_code == 200


def test_the_login_form_needs_its_own_token(site: MadeUpSite) -> None:
    site.add_person("ann")
    person = site.client()
    person.get("/login")
    for csrf in ("", "wrong", "é"):
        person.csrf = csrf
        answer = person.client.post(
            "/review/login", data={"csrf": csrf, "name": "ann", "password": PASSWORD}
        )
        assert answer.status_code == 403
        assert "evenhand_review" not in person.client.cookies


def test_pages_for_admins_refuse_reviewers(site: MadeUpSite) -> None:
    person = site.signed_in("ann")
    for page in FOR_ADMINS:
        answer = person.client.request(
            page.method, f"/review{page.path}", data={"csrf": person.csrf}
        )
        assert answer.status_code == 403, page.path
        assert "Only an admin" in answer.text


def test_a_reviewer_sees_neither_agreement_nor_other_people(site: MadeUpSite) -> None:
    site.add_posts(["one post"])
    other = site.signed_in("bob")
    other.label(rationale="bob's rationale")
    person = site.signed_in("ann")
    assert "kappa" not in person.get("/dashboard").text
    assert "bob&#39;s rationale" not in person.get("/history?of=all").text
    assert "Adjudicate" not in person.get("/").text
    admin = site.signed_in("cleo", role="admin")
    assert "kappa" in admin.get("/dashboard").text
    everybody = admin.get("/history?of=all").text
    assert "bob&#39;s rationale" in everybody
    assert ">bob<" not in everybody


@pytest.mark.parametrize("token", [None, "", "wrong", "\ud7ff"])
def test_a_form_needs_the_token(site: MadeUpSite, token: str | None) -> None:
    person = site.signed_in("ann", role="admin")
    data = {} if token is None else {"csrf": token}
    for page in CHANGING:
        answer = person.client.post(f"/review{page.path}", data={"reason": "x", **data})
        assert answer.status_code == 403, page.path
        assert is_page(answer)
    assert person.get("/settings").url.path == "/review/settings"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://["},
        {"Origin": "http://testserver.evil.test"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://testserver", "Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_form_of_another_site_is_refused(site: MadeUpSite, headers: dict[str, str]) -> None:
    person = site.signed_in("ann", role="admin")
    for page in CHANGING:
        answer = person.client.post(
            f"/review{page.path}", data={"csrf": person.csrf}, headers=headers
        )
        assert answer.status_code == 403, page.path
        assert "not sent by this server" in answer.text


def test_a_form_of_this_site_is_taken_behind_a_proxy_too(site: MadeUpSite) -> None:
    person = site.signed_in("ann")
    for origin in ("http://testserver", "https://testserver"):
        headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        answer = person.client.post(
            "/review/settings/opt-outs", data={"csrf": person.csrf}, headers=headers
        )
        assert answer.status_code == 200


def test_every_answer_has_the_headers_and_is_not_kept(site: MadeUpSite) -> None:
    person = site.signed_in("ann", role="admin")
    for path in ("/", "/history", "/adjudicate", "/dashboard", "/settings", "/nothing"):
        answer = person.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        # What the policy would not let pass is not there either.
        assert " style=" not in answer.text
        assert "<style" not in answer.text
        assert "<script>" not in answer.text
        assert " onclick" not in answer.text


def test_static_files_are_those_of_the_list(site: MadeUpSite) -> None:
    person = site.client()
    for name in ("htmx.min.js", "review.js", "style.css", "THIRD_PARTY.txt"):
        answer = person.get(f"/static/{name}")
        assert answer.status_code == 200
        assert "max-age" in answer.headers["cache-control"]
    for name in ("nothing.js", "..%2fsite.py", "%2e%2e/site.py", "a%00b"):
        assert person.get(f"/static/{name}").status_code == 404


FILE = b'--x\r\nContent-Disposition: form-data; name="csrf"; filename="a"\r\n\r\nz\r\n--x--\r\n'
ENCODED, PARTS = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
BROKEN = [
    (b"csrf=%FF%FE&label=%00", ENCODED),
    (b"\xff\x00&&==;%", ENCODED),
    (b"&".join(b"a%d=1" % number for number in range(500)), ENCODED),
    (b"csrf=" + b"x" * 200_000, ENCODED),
    (b"--x\r\nbroken", PARTS),
    (b"nothing", "multipart/form-data"),
    (FILE, PARTS),
    (b"{}", "application/json"),
    (b"", ""),
]


@pytest.mark.parametrize(("body", "kind"), BROKEN)
def test_a_broken_form_gets_a_page(site: MadeUpSite, body: bytes, kind: str) -> None:
    person = site.signed_in("ann")
    for path in ("/login", "/label", "/undo", "/settings/password"):
        answer = person.client.post(f"/review{path}", content=body, headers={"content-type": kind})
        assert 400 <= answer.status_code < 500, path
        assert is_page(answer)


def test_a_wrong_number_gets_a_page(site: MadeUpSite) -> None:
    site.add_posts(["a post"])
    person = site.signed_in("ann", role="admin")
    for value in ("", "0", "-1", "1e3", "٣", "9" * 10, "9" * 18, "9" * 400, "None", "\0"):
        said = {"item": value, "label": "hate", "group": "", "reason": "because", "alarm": value}
        for path in ("/label", "/skip", "/adjudicate", "/alarms/close"):
            answer = person.post(path, **said)
            assert answer.status_code == 422, (path, value)
            assert is_page(answer)
    for path in ("/history?of=all&item=", "/adjudicate?place=", "/?show="):
        assert person.client.get("/review" + path + "9" * 30).status_code == 200


@pytest.mark.parametrize(
    "fault", [StorageError("disk full"), OperationalError("SELECT secret", {}, OSError())]
)
def test_a_database_that_fails_gets_a_page_and_says_no_post(
    site: MadeUpSite,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
) -> None:
    person = site.signed_in("ann")

    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(labelling, "next_item", fail)
    answer = person.get("/")
    assert answer.status_code == 503
    assert is_page(answer)
    assert "secret" not in answer.text + caplog.text


def test_pages_are_not_in_the_schema(site: MadeUpSite) -> None:
    assert site.app().openapi()["paths"] == {}


def test_a_reviewer_s_pages_do_not_tell_golden_posts_from_others(site: MadeUpSite) -> None:
    """Their ids would: sampled posts come in the order of theirs."""
    with site.database.session() as session:
        rows = [Row(id="g", text="a golden post", label="hate", groups=(), source="own")]
        add_golden(session, rows, now=site.clock())
    (item,) = site.add_posts(["a post"])
    person = site.signed_in("ann")
    named = person.open_item()
    assert not named.isdigit()
    assert person.open_item() == named
    assert site.signed_in("bob").get("/").text.count(named) == 0
    for guess in (str(item), "0" * len(named), named.upper(), "é"):
        answer = person.post("/label", item=guess, label="hate", group="")
        assert answer.status_code == 422
        assert "not open for you any more" in answer.text
    assert person.post("/label", item=named, label="hate", group="").url.path == "/review/"


def test_a_post_that_another_has_open_cannot_be_named(site: MadeUpSite) -> None:
    site.add_posts(["one", "two"])
    ann, bob = site.signed_in("ann"), site.signed_in("bob")
    of_ann, of_bob = ann.open_item(), bob.open_item()
    assert of_ann != of_bob
    for path in ("/label", "/skip"):
        assert bob.post(path, item=of_ann, label="hate", group="").status_code == 422


def test_a_flood_of_passwords_is_refused_and_pages_are_answered(
    site: MadeUpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave = threading.Event()

    def slow(*_: object, **__: object) -> None:
        assert leave.wait(30)
        raise LoginError("wrong")

    monkeypatch.setattr(signing_in, "authenticate", slow)

    async def flood() -> tuple[list[int], int, int]:
        transport = httpx.ASGITransport(site.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:

            async def log_in() -> int:
                said = {"csrf": "x", "name": "ann", "password": PASSWORD}
                cookie = {"cookie": "evenhand_review_form=x"}
                return (await client.post("/review/login", data=said, headers=cookie)).status_code

            tasks = [asyncio.ensure_future(log_in()) for _ in range(40)]
            try:
                await asyncio.sleep(0)
                page = (await client.get("/review/login")).status_code
                while sum(task.done() for task in tasks) < 24:
                    await asyncio.sleep(0.005)
                others = anyio.to_thread.current_default_thread_limiter().borrowed_tokens
            finally:
                leave.set()
            return list(await asyncio.gather(*tasks)), page, others

    statuses, page, others = asyncio.run(flood())
    assert page == 200
    assert others == 0  # what checks callers' keys waits for nobody's password
    assert set(statuses) == {401, 429}
    assert statuses.count(401) == 16


def test_a_new_password_is_hashed_while_others_can_write(
    site: MadeUpSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = site.signed_in("ann")

    def hash_and_write(password: str) -> str:
        site.add_person("bob")  # would wait for the lock of a transaction around this
        return hash_password(password)

    monkeypatch.setattr(own_settings, "hash_password", hash_and_write)
    new = "another long password"
    answer = person.post("/settings/password", current=PASSWORD, new=new, again=new)
    assert "The password is changed." in answer.text
    assert site.client().log_in("ann", new).url.path == "/review/"
