"""What goes wrong in an estimator, told with its name: a cause and a remedy, no traceback."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hqtool
from hqtool.core.questions import UndeclaredQuestionError
from hqtool.errors import HqtoolError, UsageError
from hqtool.estimators.presets import ESTIMATORS
from hqtool.estimators.protocol import Estimator
from hqtool.registry import REPAIR, Choice


@contextmanager
def telling(choice: Choice[Estimator]) -> Iterator[None]:
    """Name the estimator that runs within, should it fail.

    Errors of hqtool's own estimators are not foreseen, and pass as they are.

    Raises:
        UsageError: it asks a question that it does not declare, or one of an outside package fails
            in any way.
    """
    try:
        yield
    except UndeclaredQuestionError as error:
        raise UsageError(f"estimator '{choice.label}': {error.cause}", error.remedy) from None
    except (HqtoolError, OSError):
        raise
    except Exception as error:
        package = ESTIMATORS.entry(choice.name).package
        if package is None:
            raise
        cause = f"estimator '{choice.label}' of {package} fails: {_said(error)}"
        raise UsageError(cause, REPAIR) from error


def _said(error: Exception) -> str:
    """An exception, and the last line outside hqtool that it came through."""
    inside = str(Path(hqtool.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    places = [
        f"{Path(f.filename).name}, line {f.lineno}" for f in frames if inside not in f.filename
    ]
    place = f" ({places[-1]})" if places else ""
    return f"{type(error).__name__}: {error}{place}"
