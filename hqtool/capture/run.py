"""`hqtool capture`: run an unmodified training script, recording it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hqtool.capture.messages import Progress
from hqtool.capture.recording import Recording, plan_of
from hqtool.capture.settings import CaptureSettings
from hqtool.launch.program import find_program, require_other_file
from hqtool.launch.requirements import require_torch
from hqtool.launch.stderr_lines import say


def run_script(
    target: str,
    argv: Sequence[str],
    *,
    out: str | os.PathLike[str],
    settings: CaptureSettings,
    module: bool = False,
    quiet: bool = False,
) -> int:
    """Run a training script as `__main__` of this process, and record its training.

    From here on the process belongs to the script: exit it with the status returned. The trace is
    closed when the process ends, after the script's threads and its atexit functions: complete
    where the status is 0, else truncated. SIGTERM closes it, too, and then kills the process as
    usual. The closing lines go to stderr.

    Args:
        target: the script's path, or with `module` a module's name.
        argv: its arguments.
        out: the trace to create; where several ranks train, each makes its own, T.rank0.h5 for
            T.h5, by RANK and WORLD_SIZE in the environment. A child process that is recorded
            makes T.pid1234.h5.
        settings: what to record.
        quiet: print neither progress nor closing lines.

    Returns:
        the script's exit status: 1 after an uncaught exception, 130 after Ctrl-C.

    Raises:
        HqtoolError: PyTorch is missing.
        DataError: the script or module is missing; nothing was created.
        UsageError: the trace is the program itself, exists (without `settings.force`) or cannot
            be created.
    """
    require_torch()
    program = find_program(target, argv, module=module)
    require_other_file(out, target, module=module)
    plan = plan_of(target, argv, module=module, out=out, settings=settings, quiet=quiet)
    recording = Recording(plan, Progress(quiet=quiet).update, _tell)
    recording.open()
    return recording.run(program)


def _tell(recording: Recording) -> None:
    """Print the closing lines."""
    if not recording.plan.quiet and recording.writer is not None:
        say(*recording.started.lines(), *recording.closing_lines())
