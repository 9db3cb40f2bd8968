"""The files of a command: which options name inputs and outputs, and the checks that all need.

An option or argument that names a file has the type INPUT, OUTPUT or REGULAR_OUTPUT, and its
command is a FileCommand. The command then refuses, before it does anything, an output that is an
input or another output, or that exists, and completes names of files in the shell.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
from click.shell_completion import CompletionItem

from hqtool.outputs import check_outputs


class FileName(click.ParamType):  # type: ignore[type-arg]  # click before 8.4 has no arguments
    """The name of a file."""

    name = "file"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Leave it to the shell, which knows its files."""
        return [CompletionItem(incomplete, type="file")]


class InputFile(FileName):
    """A file that is read."""


class OutputFile(FileName):
    """A file that is written.

    Args:
        regular: it must be a regular file, for it is not written from beginning to end.
    """

    def __init__(self, *, regular: bool = False) -> None:
        self.regular = regular


INPUT, OUTPUT, REGULAR_OUTPUT = InputFile(), OutputFile(), OutputFile(regular=True)


class FileCommand(click.Command):
    """A command whose outputs are checked before it begins; SIGTERM ends it as Ctrl-C does."""

    def invoke(self, ctx: click.Context) -> Any:
        """Check, then run."""
        outputs, types = self.outputs(ctx), self._output_types()
        regular = [option for option in outputs if types[option].regular]
        check_outputs(
            outputs, self.inputs(ctx), force=bool(ctx.params.get("force")), regular=regular
        )
        with self.ended_by_sigterm():
            return super().invoke(ctx)

    def inputs(self, ctx: click.Context) -> dict[str, str]:
        """Path of each input → what errors call it."""
        given = {
            param: ctx.params.get(str(param.name))
            for param in self.params
            if isinstance(param.type, InputFile)
        }
        return {
            path: f"an input ({param.make_metavar(ctx).rstrip('.').strip('[]')})"
            for param, value in given.items()
            for path in ([value] if isinstance(value, str) else value or ())
        }

    def outputs(self, ctx: click.Context) -> dict[str, str]:
        """Option → the output it names."""
        named = {
            param.opts[0]: ctx.params.get(str(param.name))
            for param in self.params
            if isinstance(param.type, OutputFile)
        }
        return {option: path for option, path in named.items() if path is not None}

    @contextmanager
    def ended_by_sigterm(self) -> Iterator[None]:
        """Within it SIGTERM raises SystemExit, so that no unfinished file is left behind."""
        with terminable():
            yield

    def _output_types(self) -> dict[str, OutputFile]:
        return {p.opts[0]: p.type for p in self.params if isinstance(p.type, OutputFile)}


class Terminated(SystemExit):
    """SIGTERM came."""


@contextmanager
def terminable() -> Iterator[None]:
    """Within it SIGTERM raises `Terminated` in this process, but ends forked children as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            die_of_sigterm()
        raise Terminated(128 + number)

    earlier = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def die_of_sigterm() -> None:
    """End as SIGTERM ends a process that does not handle it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
