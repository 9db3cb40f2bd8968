"""Which form of the kernels is in use: the compiled one where it was built, else the plain one."""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

from hqtool.errors import UsageError

#: The environment variable that chooses a form, and what it may say.
VARIABLE, CHOICES = "HQTOOL_KERNELS", ("plain", "compiled")

#: That of `_compiled.c`: one built from older source is left alone.
_VERSION = 5


class Form(NamedTuple):
    """A form of the kernels.

    Args:
        name: "plain" or "compiled".
        reason: why it is the one, for people.
    """

    name: str
    reason: str


@functools.cache
def form_in_use() -> Form:
    """The form that this process uses.

    Raises:
        UsageError: the environment variable asks for what is not there.
    """
    return choose(os.environ.get(VARIABLE, ""))


def choose(wish: str) -> Form:
    """The form for a value of the environment variable; empty: whichever is the faster."""
    if wish not in ("", *CHOICES):
        raise UsageError(f"{VARIABLE} is {wish!r}", f"set it to {' or '.join(CHOICES)}")
    if wish == "plain":
        return Form("plain", f"{VARIABLE}=plain asks for it")
    missing = why_not_compiled()
    if missing is None:
        return Form("compiled", "it was built when hqtool was installed")
    if wish == "compiled":
        raise UsageError(
            f"{VARIABLE}=compiled, but {missing}",
            "install a C compiler (GCC or Clang) and hqtool again",
        )
    return Form("plain", missing)


def why_not_compiled() -> str | None:
    """Why the compiled form cannot be used; None where it can."""
    try:
        from hqtool.kernels._compiled import VERSION
    except ImportError as error:
        return f"the compiled form cannot be loaded ({error})"
    if VERSION != _VERSION:
        return "the compiled form was built from another version's source"
    return None
