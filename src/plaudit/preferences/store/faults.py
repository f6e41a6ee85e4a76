"""What the store refuses."""

from __future__ import annotations

from plaudit.errors import DataError


class NotFound(DataError):
    """There is no such project, item, assignment, person or invitation, or it is not yours."""

    code = "NOT_FOUND"


class Conflict(DataError):
    """It is taken, answered, used or changed meanwhile."""

    code = "CONFLICT"
