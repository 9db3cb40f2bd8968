"""Calling a function as soon as a program has imported a module, and not before."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from hqtool.launch.importing import after_import


def test_looking_for_a_module_is_not_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries ask whether there is a torch, and how, long before one is imported."""
    (tmp_path / "late_module.py").write_text("import sys\nif hasattr(sys, 'too_early'): 1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "too_early", True, raising=False)
    acts: list[str] = []
    finders = list(sys.meta_path)
    after_import("late_module", lambda: acts.append("first"))
    after_import("late_module", lambda: acts.append("second"))
    assert importlib.util.find_spec("late_module") is not None
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("late_module")
    assert acts == []
    monkeypatch.delattr(sys, "too_early")
    importlib.import_module("late_module")
    assert sorted(acts) == ["first", "second"]
    assert sys.meta_path == finders
    after_import("late_module", lambda: acts.append("at once"))
    assert acts[2:] == ["at once"]
