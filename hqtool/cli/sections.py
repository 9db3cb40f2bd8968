"""Commands whose help shows their options in sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from hqtool.cli.files import FileCommand

#: Section → names of the parameters in it, of every command that replays traces.
REPLAY_SECTIONS = {
    "What is replayed": (
        "layers",
        "tensors",
        "calibrate",
        "loss_scale",
        "reduce_ranks",
        "seed",
        "buffer_bytes",
    ),
    "Files": (
        "recipe_to",
        "json_to",
        "csv_to",
        "per_step",
        "jsonl_to",
        "parquet_to",
        "force",
    ),
    "How it runs": ("jobs", "scheduler", "quiet"),
}


class SectionedCommand(FileCommand):
    """A command that shows its options in sections; those of no section come last.

    Args:
        sections: section → names of the parameters in it.
    """

    def __init__(self, *args: Any, sections: Mapping[str, tuple[str, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section under its name, its options in the order in which it names them."""
        lines = {
            str(param.name): line
            for param in self.get_params(ctx)
            if isinstance(param, click.Option) and (line := param.get_help_record(ctx))
        }
        named = {name for names in self.sections.values() for name in names}
        rest = {"Options": tuple(name for name in lines if name not in named)}
        for section, names in {**self.sections, **rest}.items():
            if shown := [lines[name] for name in names if name in lines]:
                with formatter.section(section):
                    formatter.write_dl(shown)
