"""Finding a Python program and running it in this process as `python` would."""

from __future__ import annotations

import builtins
import importlib.util
import io
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any

from hqtool.errors import DataError, Stopped, UsageError
from hqtool.launch.process_rank import path_of_rank, rank_of_process
from hqtool.launch.stderr_lines import complain
from hqtool.outputs import same_file

_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

#: The exit status of a program that Ctrl-C ended, as shells report it.
INTERRUPTED = 130


def find_program(target: str, argv: Sequence[str], *, module: bool = False) -> Callable[[], None]:
    """What `python TARGET ARGV…`, or `python -m TARGET ARGV…`, would run.

    Returns:
        a function that runs it as `__main__`, to the end of its main thread.

    Raises:
        DataError: there is no such script or module; nothing has been run by then.
    """
    if module:
        _require_module(target)
        return lambda: _run_module(target, argv)
    if not os.path.isfile(target):
        raise DataError(f"{target}: no such script", "give the path of a Python file")
    return lambda: _run_file(target, argv)


def program_files(target: str, *, module: bool = False) -> list[str]:
    """The files that the program may consist of; a module's packages are not imported for it."""
    if not module:
        return [target]
    name = os.path.join(*target.split("."))
    ends = (".py", os.path.join(os.sep, "__main__.py"), os.path.join(os.sep, "__init__.py"))
    places = [os.path.join(folder, name) for folder in ("", *sys.path)]
    return [place + end for place in places for end in ends if os.path.isfile(place + end)]


def require_other_file(out: str | os.PathLike[str], target: str, *, module: bool = False) -> None:
    """Refuse a trace that would overwrite the program to run.

    Args:
        out: the trace; of a run on several ranks, that of this rank is meant.

    Raises:
        UsageError: it would.
    """
    path = path_of_rank(out, rank_of_process())
    if any(same_file(path, source) for source in program_files(target, module=module)):
        raise UsageError(f"{path} is the program to run", "choose another name for the trace")


def exit_status(run: Callable[[], None]) -> int:
    """Run a program, and handle its end as the interpreter would.

    An exception is printed through sys.excepthook, without this package's frames; of `Stopped` its
    cause and remedy alone.

    Returns:
        the process's exit status.
    """
    try:
        run()
    except SystemExit as end:
        return _status_of(end.code)
    except Stopped as error:
        complain(error)
        return error.exit_status
    except BaseException as error:
        _print_exception(error)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _status_of(code: Any) -> int:
    """The status that `sys.exit(code)` asks for; a code that is not a number is printed."""
    if code is None or isinstance(code, int):
        return code or 0
    if sys.stderr is not None:
        with suppress(Exception):  # a stream of the program's own, or a closed one
            print(code, file=sys.stderr)
    return 1


def _run_file(path: str, argv: Sequence[str]) -> None:
    _set_path(os.path.dirname(os.path.realpath(path)))
    sys.argv[:] = [path, *argv]
    file = os.path.abspath(path)
    main = _main_module(file, SourceFileLoader("__main__", file))
    with io.open_code(file) as source:
        code = compile(source.read(), file, "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _run_module(name: str, argv: Sequence[str]) -> None:
    """Run a module, and first import its packages, which may fail or import torch."""
    _set_path(os.getcwd())
    sys.argv[:] = ["-m", *argv]
    try:
        details: tuple[str, ModuleSpec, CodeType] = runpy._get_module_details(name, _NotFound)  # type: ignore[attr-defined]
    except _NotFound as error:
        sys.exit(f"{sys.executable}: {error}")
    _, spec, code = details
    file = str(spec.origin)
    sys.argv[0] = file
    main = _main_module(file, spec.loader)
    main.__dict__.update(__spec__=spec, __package__=spec.parent, __cached__=spec.cached)
    exec(code, main.__dict__)


class _NotFound(Exception):
    """There is no such module, or it cannot be run."""


def _main_module(file: str, loader: Any) -> ModuleType:
    """A `__main__` module that stays, as a script has it.

    `runpy` removes its own at the end: then what the program defines can be neither pickled nor
    used by threads that still run.
    """
    main = ModuleType("__main__")
    main.__dict__.update(
        __file__=file,
        __loader__=loader,
        __package__=None,
        __cached__=None,
        __builtins__=builtins,
        __annotations__={},
    )
    sys.modules["__main__"] = main
    return main


def _set_path(folder: str) -> None:
    """Let imports search the program's folder first, in place of the running command's."""
    if not sys.flags.safe_path:
        sys.path[0] = folder


def _require_module(name: str) -> None:
    """Raise a DataError unless the outermost package exists; looking further would import it."""
    outermost = name.partition(".")[0]
    _set_path(os.getcwd())
    if not outermost or importlib.util.find_spec(outermost) is None:
        raise DataError(f"no module named {name}", "give the name that `python -m` takes")


def _print_exception(error: BaseException) -> None:
    for each in _chain(error):
        each.__traceback__ = _foreign(each.__traceback__)
    if sys.stdout is not None:
        with suppress(Exception):  # full, closed or no stream: the exception is what counts
            sys.stdout.flush()
    sys.excepthook(type(error), error, error.__traceback__)


def _chain(error: BaseException | None) -> list[BaseException]:
    """An exception and all that led to it."""
    found: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in found:
            found[id(each)] = each
            waiting += [each.__cause__, each.__context__]
    return list(found.values())


def _foreign(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without this package's frames."""
    frames = []
    while traceback is not None:
        if not traceback.tb_frame.f_code.co_filename.startswith(_OWN_FOLDER):
            frames.append(traceback)
        traceback = traceback.tb_next
    for frame, follower in zip(frames, [*frames[1:], None], strict=False):
        frame.tb_next = follower
    return frames[0] if frames else None
