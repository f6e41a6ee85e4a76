"""Passwords: argon2id."""

from __future__ import annotations

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from plaudit.errors import DataError

SHORTEST, LONGEST = 10, 200
COMMON = frozenset(
    "password password1 password123 passwordpassword 1234567890 12345678910 123456789012 qwertyuiop qwerty12345 "
    "iloveyou12 administrator letmein123 welcome123 abcdefghij 0123456789 1111111111 0000000000".split()
)
_HASHER = PasswordHasher(time_cost=3, memory_cost=19_456, parallelism=1)
_NOBODY = _HASHER.hash("nobody has this password")


def hash_password(password: str, name: str) -> str:
    """The hash to be stored; a DataError for a password that is guessed at once."""
    if not SHORTEST <= len(password) <= LONGEST:
        what = f"a password has {SHORTEST} to {LONGEST} characters"
        raise DataError(what, where="password", cure="four random words do well")
    if password.lower() in COMMON or password.lower() == name.lower() or len(set(password)) < 4:
        raise DataError(
            "this password is guessed at once", where="password", cure="four random words do well"
        )
    return _HASHER.hash(password)


def is_right(password: str, hashed: str | None) -> bool:
    """Whether the password belongs to the hash. It takes as long when there is no such person."""
    try:
        _HASHER.verify(hashed or _NOBODY, password[:LONGEST])
    except (VerificationError, InvalidHashError):
        return False
    return hashed is not None
