"""What a script may save of its quantized training beside a checkpoint, and go on with.

    torch.save({"model": model.state_dict(), "hqtool": hqtool.training.state_dict()}, path)
    ...
    hqtool.training.load_state_dict(torch.load(path)["hqtool"])

Nothing here needs torch: a script may call both whether it runs under `hqtool train` or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from hqtool.errors import DataError

SCHEMA = "hqtool.train-state/1"


class Resumable(Protocol):
    """A quantized training in this process."""

    def state_dict(self) -> dict[str, Any]:
        """What it knows; see `state_dict`."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; see `load_state_dict`."""


#: The quantized trainings of this process, the innermost last.
_running: list[Resumable] = []


def began(training: Resumable) -> None:
    """A quantized training begins."""
    _running.append(training)


def ended(training: Resumable) -> None:
    """A quantized training has ended, or is not of this process."""
    if training in _running:
        _running.remove(training)


def state_dict() -> dict[str, Any]:
    """The states of all estimators, and the number of the next step, to save beside a checkpoint.

    Call it between two steps. It holds dictionaries, lists, texts and numbers alone, which
    `torch.save` and JSON can write. Nothing of the training changes.

    Returns:
        an empty dictionary where nothing is quantized, as under plain Python.

    Raises:
        DataError: the state of an estimator, of an outside package, cannot be saved.
    """
    return _running[-1].state_dict() if _running else {}


def load_state_dict(state: Mapping[str, Any]) -> None:
    """Go on from a saved state: with the same bits as if training had not been interrupted.

    Call it before the first step, with the script's own state loaded, too, under the same recipe
    and seed; steps are then numbered on from there. After a step the estimators' states alone are
    taken over. An empty state, or one that is loaded where nothing is quantized, changes nothing.

    Raises:
        DataError: it is no such state, or one of another recipe.
    """
    if not state:
        return
    if state.get("schema") != SCHEMA:
        cause = f"not a state that hqtool.training has saved: its schema is not {SCHEMA}"
        raise DataError(cause, "load what hqtool.training.state_dict() returned")
    if _running:
        _running[-1].load_state_dict(state)
