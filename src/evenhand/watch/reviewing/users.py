"""Reviewers and admins: who they are, their passwords, their logins.

Passwords are kept as argon2id hashes, a login's token as its sha256. A name that is not known
takes as long to refuse as a wrong password, and repeated failures of a name lock it for a while.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import secrets
import threading
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from evenhand.core.errors import ConfigError, Problem
from evenhand.core.registry import suggest
from evenhand.watch.reviewing.lock_out import LockedOutError as LockedOutError
from evenhand.watch.reviewing.lock_out import LockOut, LoginError
from evenhand.watch.store.database import Database
from evenhand.watch.store.tables import ItemRow, LoginRow, UserRow

ROLES = ("reviewer", "admin")
MIN_PASSWORD_CHARS = 12
# A hash of a very long password costs the server time and memory that anyone could ask for.
MAX_PASSWORD_CHARS = 1024
MAX_NAME_CHARS = 64

HASHER = PasswordHasher()
"""Hashes passwords; tests put a cheap one in its place."""

# One verification takes 64 MiB and four threads: a flood of logins must not take the memory and the
# processors of the scoring.
_VERIFYING = threading.BoundedSemaphore(1)


@dataclass(frozen=True, slots=True)
class Login:
    """An open login.

    Attributes:
        token: the cookie's value; the database knows only its sha256.
        csrf: what every form must send back.
        user: whose login it is.
        row: its entry in the database, which counts the sitting.
    """

    token: str
    csrf: str
    user: UserRow
    row: LoginRow

    def accepts(self, csrf: str) -> bool:
        """Whether a form's token is this login's, compared in constant time."""
        return hmac.compare_digest(_bytes(self.csrf), _bytes(csrf))


_LOCK_OUT = LockOut()
_WRONG = "the name or the password is wrong"


def add_user(session: Session, name: str, *, role: str, password: str, now: datetime) -> UserRow:
    """Add a person under a fresh random pseudonym.

    Names are kept in lower case, so that no two differ by case alone.

    Raises:
        ConfigError: the name is taken or unusable, the role unknown, the password too short.
    """
    cleaned = clean_name(name)
    problems = [*_name_problems(cleaned), *_password_problems(password)]
    if role not in ROLES:
        problems.append(Problem("role", f'"{role}" is not one of {list(ROLES)}'))
    if not problems and _by_name(session, cleaned) is not None:
        problems.append(Problem("name", f'"{cleaned}" is taken'))
    if problems:
        raise ConfigError("the user", problems, consequence="nobody was added")
    user = UserRow(
        name=cleaned,
        pseudonym=_fresh_pseudonym(session),
        role=role,
        password_hash=_hash(password),
        opted_out=[],
        is_active=True,
        created=now,
    )
    session.add(user)
    session.flush()
    return user


def find_user(session: Session, name: str) -> UserRow:
    """Return the person of a name, active or not.

    Raises:
        ConfigError: nobody has this name.
    """
    user = _by_name(session, clean_name(name))
    if user is None:
        known = session.scalars(select(UserRow.name)).all()
        message = f'there is no user "{name}"{suggest(name, known)}'
        raise ConfigError("the user", [Problem("name", message)], consequence="nothing was done")
    return user


def list_users(session: Session) -> Sequence[UserRow]:
    """Return everybody, in the order in which they were added."""
    return session.scalars(select(UserRow).order_by(UserRow.id)).all()


def check_password(user: UserRow | None, password: str) -> bool:
    """Whether a password is the person's; for None it takes as long and is False."""
    stored = _no_ones_hash(HASHER) if user is None else user.password_hash
    usable = len(password) <= MAX_PASSWORD_CHARS
    given = _normal(password) if usable else b""
    try:
        with _VERIFYING:
            matches = HASHER.verify(stored, given)
    except (VerificationError, InvalidHashError):
        return False
    return matches and usable and user is not None and user.is_active


def log_in(
    session: Session,
    name: str,
    password: str,
    *,
    hours: float,
    now: datetime,
    lock_out: LockOut = _LOCK_OUT,
) -> Login:
    """Open a login; a sitting goes on over a logout, so that a break cannot be skipped.

    Raises:
        LoginError: the name or the password is wrong, or the person is deactivated.
        LockedOutError: the name has failed too often.
    """
    cleaned = clean_name(name)
    lock_out.begin(cleaned, now=now)
    user = _by_name(session, cleaned)
    if not check_password(user, password) or user is None:
        raise LoginError(_WRONG)
    lock_out.succeed(cleaned)
    return _admit(session, user, password, hours=hours, now=now)


def authenticate(
    database: Database,
    name: str,
    password: str,
    *,
    hours: float,
    now: datetime,
    lock_out: LockOut = _LOCK_OUT,
) -> Login:
    """Do what :func:`log_in` does, but check the password outside of any transaction.

    A password takes a good part of a second to check; on SQLite nothing could be stored meanwhile.

    Raises:
        LoginError: the name or the password is wrong, or the person is deactivated.
        LockedOutError: the name has failed too often.
    """
    cleaned = clean_name(name)
    lock_out.begin(cleaned, now=now)
    with database.reading() as session:
        user = _by_name(session, cleaned)
    if not check_password(user, password) or user is None:
        raise LoginError(_WRONG)
    lock_out.succeed(cleaned)
    with database.session() as session:
        return _admit(session, session.get_one(UserRow, user.id), password, hours=hours, now=now)


def open_login(session: Session, user: UserRow, *, hours: float, now: datetime) -> Login:
    """Open a login for somebody whose password has been checked."""
    latest = session.scalars(
        select(LoginRow)
        .where(LoginRow.user_id == user.id)
        .order_by(LoginRow.created.desc())
        .limit(1)
    ).first()
    token = secrets.token_urlsafe(32)
    row = LoginRow(
        token_sha256=_token_sha256(token),
        user_id=user.id,
        csrf=secrets.token_urlsafe(32),
        created=now,
        expires=now + timedelta(hours=hours),
        sitting_started=now if latest is None else latest.sitting_started,
        sitting_items=0 if latest is None else latest.sitting_items,
    )
    outdated = LoginRow.expires < now - timedelta(days=1)
    session.execute(delete(LoginRow).where(LoginRow.user_id == user.id, outdated))
    session.add(row)
    session.flush()
    return Login(token, row.csrf, user, row)


def find_login(session: Session, token: str, *, now: datetime) -> Login | None:
    """Return the open login of a token; None where it is unknown, over, or its user inactive."""
    row = session.get(LoginRow, _token_sha256(token))
    if row is None or row.expires <= now:
        return None
    user = session.get_one(UserRow, row.user_id)
    return Login(token, row.csrf, user, row) if user.is_active else None


def log_out(session: Session, login: Login, *, now: datetime) -> None:
    """End a login and let go of the post that its user had open."""
    login.row.expires = now
    let_go(session, login.user)


def set_password(
    session: Session, user: UserRow, password: str, *, now: datetime, keep: Login | None = None
) -> None:
    """Set a password and end the person's logins, but for the one in which it was set.

    Raises:
        ConfigError: the password is too short.
    """
    set_password_hash(session, user, hash_password(password), now=now, keep=keep)


def hash_password(password: str) -> str:
    """Return what is kept of a password; it takes a good part of a second, so hold no transaction.

    Raises:
        ConfigError: the password is too short.
    """
    problems = _password_problems(password)
    if problems:
        raise ConfigError("the password", problems, consequence="the old one stays")
    return _hash(password)


def set_password_hash(
    session: Session, user: UserRow, password_hash: str, *, now: datetime, keep: Login | None = None
) -> None:
    """Do what :func:`set_password` does with what :func:`hash_password` returned."""
    user.password_hash = password_hash
    _end_logins(session, user, now=now, keep=keep)


def set_opt_outs(session: Session, user: UserRow, groups: Iterable[str]) -> None:
    """Set the proposed groups that the person does not want to see; an open post is let go."""
    user.opted_out = sorted({group.strip() for group in groups if group.strip()})
    let_go(session, user)


def deactivate(session: Session, name: str, *, now: datetime) -> UserRow:
    """End a person's access; what they did stays in the history.

    Raises:
        ConfigError: nobody has this name.
    """
    user = find_user(session, name)
    user.is_active = False
    _end_logins(session, user, now=now, keep=None)
    let_go(session, user)
    return user


def let_go(session: Session, user: UserRow) -> None:
    """Free the post that a person has open, for others."""
    held = update(ItemRow).where(ItemRow.held_by == user.id)
    session.execute(held.values(held_by=None, held_until=None))


def clean_name(name: str) -> str:
    """Return a name as it is kept: composed, lower case, single spaces.

    >>> clean_name(" Anna  Lee ")
    'anna lee'
    """
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _admit(session: Session, user: UserRow, password: str, *, hours: float, now: datetime) -> Login:
    if HASHER.check_needs_rehash(user.password_hash):
        user.password_hash = _hash(password)
    return open_login(session, user, hours=hours, now=now)


def _by_name(session: Session, cleaned: str) -> UserRow | None:
    # PostgreSQL refuses to look for what it cannot store.
    if _name_problems(cleaned):
        return None
    return session.scalars(select(UserRow).where(UserRow.name == cleaned)).one_or_none()


def _name_problems(cleaned: str) -> list[Problem]:
    if not cleaned:
        return [Problem("name", "is empty")]
    if len(cleaned) > MAX_NAME_CHARS:
        return [Problem("name", f"is longer than {MAX_NAME_CHARS} characters")]
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in cleaned):
        return [Problem("name", "has control characters")]
    return []


def _password_problems(password: str) -> list[Problem]:
    if len(password) < MIN_PASSWORD_CHARS:
        message = f"has {len(password)} characters; at least {MIN_PASSWORD_CHARS} are needed"
        return [Problem("password", message)]
    if len(password) > MAX_PASSWORD_CHARS:
        return [Problem("password", f"is longer than {MAX_PASSWORD_CHARS} characters")]
    return []


def _fresh_pseudonym(session: Session) -> str:
    while True:
        pseudonym = f"reviewer-{secrets.token_hex(3)}"
        taken = select(func.count()).where(UserRow.pseudonym == pseudonym)
        if not session.scalar(taken):
            return pseudonym


def _end_logins(session: Session, user: UserRow, *, now: datetime, keep: Login | None) -> None:
    ended = update(LoginRow).where(LoginRow.user_id == user.id, LoginRow.expires > now)
    if keep is not None:
        ended = ended.where(LoginRow.token_sha256 != keep.row.token_sha256)
    session.execute(ended.values(expires=now))


def _hash(password: str) -> str:
    with _VERIFYING:
        return HASHER.hash(_normal(password))


def _normal(password: str) -> bytes:
    # Keyboards compose characters differently (NIST SP 800-63B, 3.1.1.2).
    return _bytes(unicodedata.normalize("NFKC", password))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _token_sha256(token: str) -> str:
    return hashlib.sha256(_bytes(token)).hexdigest()


@functools.lru_cache(maxsize=4)
def _no_ones_hash(hasher: PasswordHasher) -> str:
    return hasher.hash(secrets.token_bytes(16))
