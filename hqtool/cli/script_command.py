"""What the commands that run a training script share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click

from hqtool.cli.files import FileCommand
from hqtool.cli.streams import script_streams
from hqtool.launch.program import program_files


class ScriptCommand(FileCommand):
    """Inputs are the script and the files among its arguments."""

    def inputs(self, ctx: click.Context) -> dict[str, str]:
        """The program's files, and existing files among its arguments."""
        target, *argv = ctx.params["program"]
        files = program_files(target, module=ctx.params["module"])
        words = [part for word in argv for part in (word, word.partition("=")[2])]
        given = {word: "an argument of the script" for word in words if os.path.isfile(word)}
        return given | dict.fromkeys(files, "the program to run")

    @contextmanager
    def ended_by_sigterm(self) -> Iterator[None]:
        """The script gets Python's own streams; SIGTERM is handled while it runs."""
        with script_streams():
            yield
