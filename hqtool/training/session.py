"""One quantized training in this process: a watcher finds layers, a trainer quantizes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hqtool.launch.process_rank import path_of_rank, rank_of_process
from hqtool.launch.stderr_lines import say
from hqtool.recipes.recipe import Recipe
from hqtool.recipes.trainable import require_trainable
from hqtool.trace.writer import TraceWriter
from hqtool.training.outcome import TrainOutcome, outcome_of
from hqtool.training.settings import TrainSettings
from hqtool.training.sites.saved_state import began, ended
from hqtool.training.told.provenance import provenance
from hqtool.training.told.run_trace import RunTrace
from hqtool.training.trainer import Trainer
from hqtool.vocab import Site
from hqtool.watch.watcher import Watcher, require_model


class Session:
    """Quantizes training in this process, from `attach` to `close`.

    Args:
        writer: an open trace that keeps ranges used; None: nothing is written.
        model: quantize only its modules; None: those of any model.
        quiet: do not say that compiled code runs eagerly.
        states, on_step: see `Trainer`.

    Attributes:
        trainer: what quantizes.
        outcome: the result; None before it is closed.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: TrainSettings,
        writer: TraceWriter | None,
        model: nn.Module | None = None,
        *,
        quiet: bool = False,
        states: Mapping[Site, Any] | None = None,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.recipe = recipe
        self.trace = None if writer is None else RunTrace(writer)
        self.trainer = Trainer(recipe, settings, self.trace, states, on_step)
        self.outcome: TrainOutcome | None = None
        self._began = time.perf_counter()
        self._acts = bool(recipe.tensors)
        self._watcher = Watcher(
            self.trainer,
            step_on=settings.step_on,
            model=model,
            on_compile=(lambda: None) if quiet else _say_eager,
            operands=self.trainer if self._acts else None,
        )
        self.trainer.report_through(self._watcher.reporter)
        self._had_fast_path: bool | None = None

    def attach(self) -> None:
        """Begin to quantize.

        The fast code that attention runs in eval mode calls no product that could be intercepted.
        """
        if self._acts:
            self._had_fast_path = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
            began(self)
        self._watcher.attach()

    def detach(self) -> None:
        """Stop, and leave torch as it was."""
        ended(self)
        self._watcher.detach()
        if self._had_fast_path is not None:
            torch.backends.mha.set_fastpath_enabled(self._had_fast_path)
            self._had_fast_path = None

    def state_dict(self) -> dict[str, Any]:
        """What to save beside a checkpoint; see `hqtool.training.state_dict`."""
        self._watcher.end_step_by_hand()
        return self.trainer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what was saved; see `hqtool.training.load_state_dict`."""
        self.trainer.load_state_dict(state)
        self._watcher.begin_at(state["step"])
        if self.trace is not None:
            self.trace.note("resumed_at", state["step"])

    def outcome_so_far(self) -> TrainOutcome:
        """What has been quantized by now."""
        seconds = time.perf_counter() - self._began
        return outcome_of(self.recipe, self.trainer, self._watcher.finish(), seconds)

    def close(self, state: str) -> TrainOutcome:
        """Write the last notes and close the trace.

        Args:
            state: "complete" or "truncated".
        """
        self.outcome = self.outcome_so_far()
        self.trainer.ranks.leave()
        if self.trace is not None:
            self.trace.note("training", self.outcome.to_json())
            if self.outcome.watched.skipped_steps:
                self.trace.note("skipped_steps", list(self.outcome.watched.skipped_steps))
            self.trace.close(state)
        return self.outcome


def _say_eager() -> None:
    say("what torch.compile compiles runs eagerly, so that its layers can be quantized")


@contextmanager
def open_session(
    model: nn.Module,
    recipe: Recipe,
    path: str | os.PathLike[str] | None,
    settings: TrainSettings,
) -> Iterator[Session]:
    """Quantize a model's training inside a `with` block; see `hqtool.train`."""
    require_model(model)
    require_trainable(recipe)
    writer = None
    if path is not None:
        rank = rank_of_process()
        run = provenance([Path(sys.argv[0]).name, *sys.argv[1:]], recipe, settings) | rank
        writer = TraceWriter(
            path_of_rank(path, rank),
            force=settings.force,
            run=run,
            channel_extremes=recipe.reads_channel_extremes,
            used_ranges=True,
        )
    session = Session(recipe, settings, writer, model)
    state = "truncated"
    try:
        session.attach()
        yield session
        state = "complete"
    finally:
        session.detach()
        session.close(state)
