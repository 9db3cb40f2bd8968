"""Errors for users: each has a cause, a remedy and an exit status."""

from __future__ import annotations


class HqtoolError(Exception):
    """An error that the user can do something about.

    Args:
        cause: one line, what is wrong and where.
        remedy: one line, what to do about it.
    """

    exit_status = 3

    def __init__(self, cause: str, remedy: str | None = None) -> None:
        self.cause = cause
        self.remedy = remedy
        super().__init__(cause if remedy is None else f"{cause}\n{remedy}")

    def __reduce__(self) -> tuple[type[HqtoolError], tuple[str, str | None]]:
        """Pickle by cause and remedy: errors cross process boundaries."""
        return type(self), (self.cause, self.remedy)


class UsageError(HqtoolError):
    """The command or the call is wrong: an unknown name, a value out of bounds."""

    exit_status = 2


class DataError(HqtoolError):
    """A file or tensor is missing, broken or not what it should be."""

    exit_status = 3


class Stopped(HqtoolError):
    """What runs was to end here: its user had asked for that."""

    exit_status = 1
