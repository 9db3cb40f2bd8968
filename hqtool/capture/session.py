"""One trace of training in this process: a watcher observes it, a recorder writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from hqtool.capture.outcome import CaptureOutcome
from hqtool.capture.provenance import provenance
from hqtool.capture.recorder import Recorder
from hqtool.capture.settings import CaptureSettings
from hqtool.launch.process_rank import path_of_rank, rank_of_process
from hqtool.launch.stderr_lines import say
from hqtool.trace.writer import TraceWriter
from hqtool.watch.watcher import Watched, Watcher, require_model


class Session:
    """Records training in this process into a trace, from `attach` to `close`.

    Args:
        writer: an open trace.
        settings: what to record.
        model: record only its modules; None: those of any model.
        on_commit: called with the recorder after each step.
        quiet: do not say that compiled code runs eagerly.

    Attributes:
        outcome: the result; None before it is closed.
    """

    def __init__(
        self,
        writer: TraceWriter,
        settings: CaptureSettings,
        model: nn.Module | None = None,
        on_commit: Callable[[Recorder], None] = lambda recorder: None,
        *,
        quiet: bool = False,
    ) -> None:
        self.recorder = Recorder(writer, settings, on_commit)
        self.outcome: CaptureOutcome | None = None
        self._watcher = Watcher(
            self.recorder,
            step_on=settings.step_on,
            module_types=settings.module_types,
            with_evaluation=settings.eval,
            model=model,
            on_compile=(lambda: None) if quiet else _say_eager,
        )

    def attach(self) -> None:
        """Begin to watch."""
        self._watcher.attach()

    def detach(self) -> None:
        """Stop watching, and leave torch as it was."""
        self._watcher.detach()

    def close(self, state: str) -> CaptureOutcome:
        """Write the last notes and close the trace.

        Args:
            state: "complete" or "truncated".
        """
        watched = self._watcher.finish()
        self.recorder.note(
            {
                "unrecorded_layers": watched.unrecorded | watched.left_out,
                "skipped_steps": list(watched.skipped_steps),
                "steps_by_forward": watched.steps_by_forward,
                "passes_without_gradients": watched.passes_without_gradients,
                "passes_without_backward": watched.passes_without_backward,
                "unfinished_step": self.recorder.unfinished_step,
                "torch_compile": "run eagerly" if watched.runs_eagerly else None,
            }
        )
        self.recorder.close(state)
        self.outcome = outcome_of(self.recorder, watched)
        return self.outcome


def _say_eager() -> None:
    say(
        "what torch.compile compiles runs eagerly under capture, so that its layers are seen: "
        "training has the bits of eager mode"
    )


def outcome_of(recorder: Recorder, watched: Watched) -> CaptureOutcome:
    """The result of a capture whose trace was closed."""
    return CaptureOutcome(
        size_bytes=recorder.writer.bytes_written,
        steps=recorder.steps,
        steps_with_values=recorder.steps_with_values,
        sites=len(recorder.sites),
        ends_within_a_step=recorder.unfinished_step is not None,
        failed=dict(recorder.failed),
        without_geometry=dict(recorder.without_geometry),
        waited_seconds=recorder.waited_seconds,
        waited_share=recorder.waited_share,
        watched=watched,
    )


@contextmanager
def open_session(
    model: nn.Module, path: str | os.PathLike[str], settings: CaptureSettings
) -> Iterator[Session]:
    """Record a model's training inside a `with` block; see `hqtool.capture`."""
    require_model(model)
    rank = rank_of_process()
    run = provenance([Path(sys.argv[0]).name, *sys.argv[1:]], settings) | rank
    writer = TraceWriter(
        path_of_rank(path, rank),
        force=settings.force,
        run=run,
        channel_extremes=settings.per_channel,
    )
    session = Session(writer, settings, model)
    state = "truncated"
    try:
        session.attach()
        yield session
        state = "complete"
    finally:
        session.detach()
        session.close(state)
