"""Building a model without weights, from the name of a function that makes it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import nn

from hqtool.errors import DataError, HqtoolError, UsageError
from hqtool.nearest import known_names
from hqtool.patch import replaced

META = "meta"


def built(target: str) -> nn.Module:
    """The model that PACKAGE.MODULE:FACTORY makes, on torch's meta device, which has no memory.

    The current folder is searched first, as `python -m` does. A factory is called without
    arguments; a class with a `config_class`, as those of transformers, gets a default one. A model
    that the module holds is taken as it is, without its weights.

    Raises:
        DataError: there is no such module or factory, or it fails, or makes no model.
    """
    make = _factory(target)
    with failures_told(f"{target}: building it failed", _BUILDING):
        model = on_meta(make)
    if not isinstance(model, nn.Module):
        made = type(model).__name__
        raise DataError(f"{target}: made a {made}, not a model", "name a function that returns one")
    return model.to(META).eval()


_BUILDING = "name a function or class that makes the model when called without arguments"


def on_meta(make: Callable[[], Any]) -> Any:
    """Call a factory with meta tensors; where it reads values, with parameters alone on meta."""
    try:
        with torch.device(META):
            return make()
    except (NotImplementedError, RuntimeError):
        with _parameterson_meta():
            made = make()
        return made.to(META) if isinstance(made, nn.Module) else made


@contextmanager
def _parameterson_meta() -> Iterator[None]:
    """Within it every parameter becomes a meta tensor as soon as a module gets it."""

    def wrap(original: Callable[..., None]) -> Callable[..., None]:
        def register_parameter(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
            if isinstance(param, nn.Parameter):
                param = nn.Parameter(param.to(META), requires_grad=param.requires_grad)
            original(module, name, param)

        return register_parameter

    with replaced(nn.Module, "register_parameter", wrap):
        yield


def _factory(target: str) -> Callable[[], Any]:
    module_name, _, name = target.partition(":")
    if not module_name or not name:
        raise UsageError(f"{target} names no model", "write PACKAGE.MODULE:FACTORY")
    module_name = module_name.removesuffix(".py").replace(os.sep, ".").lstrip(".")
    _search_current_folder()
    with failures_told(f"{target}: importing {module_name} failed", "correct the module"):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise _no_module(target, module_name, error) from error
    for part in name.split("."):
        if not hasattr(found, part):
            names = [each for each in dir(found) if not each.startswith("_")]
            raise DataError(f"{target}: {module_name} has no {part}", _near(part, names))
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        return lambda: found
    if not callable(found):
        raise DataError(f"{target}: {name} cannot be called", _BUILDING)
    config = getattr(found, "config_class", None)
    return (lambda: found(config())) if callable(config) else found


def _near(name: str, names: list[str]) -> str:
    """The nearest name; a library has too many to list them all."""
    return known_names(name, names).partition("known:")[0].strip() or "check the name"


def _search_current_folder() -> None:
    if not sys.flags.safe_path and sys.path[:1] != [os.getcwd()]:
        sys.path.insert(0, os.getcwd())


def _no_module(target: str, name: str, error: ModuleNotFoundError) -> DataError:
    missing = error.name or name
    if name == missing or name.startswith(f"{missing}."):
        remedy = "install it, or run hqtool in the folder that holds it"
        return DataError(f"{target}: there is no module {missing}", remedy)
    return DataError(f"{target}: {name} needs the module {missing}", "install it")


@contextmanager
def failures_told(cause: str, remedy: str) -> Iterator[None]:
    """Within it what a model's own code raises becomes a DataError that says what it said.

    What it prints goes to stderr.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except HqtoolError:
        raise
    except (Exception, SystemExit) as error:
        said = next(iter(str(error).splitlines()), "")
        if "meta tensor" in said or "meta device" in said:
            remedy = "it reads values, which tensors of a shape alone have not; export it to ONNX"
        raise DataError(f"{cause}: {type(error).__name__}: {said}", remedy) from error
