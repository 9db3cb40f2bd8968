"""The result of a training run: a checksum of every tensor of the models that were trained.

The script runs in a process of its own, plainly, under capture or quantized; at its end the
checksums are written to a file.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from hqtool.capture.run import run_script
from hqtool.capture.settings import CaptureSettings
from hqtool.errors import HqtoolError
from hqtool.launch.importing import after_import
from hqtool.launch.meeting import meet_apart
from hqtool.launch.program import exit_status, find_program

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


def main() -> None:
    """Run the script that the command line's only argument describes, a JSON object.

    Its keys: `target`, `argv` and `module`; `report`, the file to write; `how`, the run's name,
    under which its ranks meet; `by`, 'capture', 'train', or null for a plain run; `out`, the trace,
    or null; `settings`; of a training `recipe`, its name and TOML, and `calibrate`, the steps that
    set ranges up, or null.
    """
    job = json.loads(sys.argv[1])
    meet_apart(job["how"])
    Fingerprint(job["report"], eager=job["by"] is None).begin()
    sys.exit(_run(job))


def _run(job: dict[str, Any]) -> int:
    ways = {None: _run_plainly, "capture": _capture, "train": _train}
    try:
        return ways[job["by"]](job, job["target"], job["argv"], job["module"])
    except HqtoolError as error:
        print(f"hqtool: {error}", file=sys.stderr, flush=True)
        os._exit(error.exit_status)  # without a report: nothing has run


def _run_plainly(job: dict[str, Any], target: str, argv: list[str], module: bool) -> int:
    return exit_status(find_program(target, argv, module=module))


def _capture(job: dict[str, Any], target: str, argv: list[str], module: bool) -> int:
    settings = CaptureSettings(**job["settings"])
    return run_script(target, argv, out=job["out"], settings=settings, module=module)


def _train(job: dict[str, Any], target: str, argv: list[str], module: bool) -> int:
    from hqtool.recipes.recipe_file import parse_recipe
    from hqtool.training.aside import aside
    from hqtool.training.run import train_script
    from hqtool.training.settings import TrainSettings

    name, rules = job["recipe"]
    recipe, settings = parse_recipe(rules, name), TrainSettings(**job["settings"])
    how: dict[str, Any] = {"recipe": recipe, "settings": settings, "module": module}
    states = None
    if job["calibrate"] is not None:
        states = aside(target, argv, steps=job["calibrate"], **how).states
    return train_script(target, argv, out=job["out"], states=states, **how)


class Fingerprint:
    """Notes which tensors optimizers update, and writes their checksums at exit.

    It keeps tensors and modules alive, but not optimizers: capture looks for those in use.

    Args:
        report: the file to write, JSON: `updates`, how many steps optimizers made; `seconds`, the
            mean time between them, null below two; `tensors`, a list of [name, number of values,
            sha256], in the order of the optimizers' first steps; `unreadable`, a list of
            [name, reason], the tensors that have no bits to compare; `compiles`, whether
            torch.compile was used.
        eager: let what torch.compile compiles run eagerly, as it does under capture.
    """

    def __init__(self, report: str, *, eager: bool) -> None:
        self._report = report
        self._eager = eager
        self._compiles = False
        self._pid = os.getpid()
        self._updates = 0
        self._first = self._last = 0.0
        self._parameters: list[Tensor] = []
        self._models: list[nn.Module] = []
        self._sizes: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()

    def begin(self) -> None:
        """Watch optimizers as soon as torch is imported, and write the report at exit."""
        atexit.register(self._write)
        after_import("torch", self._watch)

    def _watch(self) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        register_optimizer_step_post_hook(self._updated)
        if self._eager:
            from hqtool.watch.eager_mode import EagerMode

            EagerMode(self._compiled).attach(ExitStack())

    def _compiled(self) -> None:
        self._compiles = True

    def _updated(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._last = time.perf_counter()
        self._first = self._first or self._last
        self._updates += 1
        from hqtool.watch.optimizers import parameters_updated_by

        parameters = list(parameters_updated_by(optimizer))
        if self._sizes.get(optimizer) != len(parameters):
            self._sizes[optimizer] = len(parameters)
            self._meet(parameters)

    def _meet(self, parameters: list[Tensor]) -> None:
        """Note new parameters of an optimizer, and the models that hold them."""
        self._parameters += _new(parameters, self._parameters)
        self._models += _new(_models_of(parameters), self._models)

    def _write(self) -> None:
        if os.getpid() != self._pid:
            return
        between = self._updates - 1
        report = {
            "updates": self._updates,
            "seconds": (self._last - self._first) / between if between > 0 else None,
            "compiles": self._compiles,
        } | self._digests()
        with open(self._report, "w", encoding="utf-8") as out:
            json.dump(report, out)

    def _digests(self) -> dict[str, list[Any]]:
        tensors: list[tuple[str, int, str]] = []
        unreadable: list[tuple[str, str]] = []
        named = list(self._named())
        if named:  # else torch may never have been imported
            from hqtool.trial.tensor_bits import Unreadable, digest_of
        for name, tensor in named:
            try:
                tensors.append((name, *digest_of(tensor)))
            except Unreadable as error:
                unreadable.append((name, str(error)))
        return {"tensors": tensors, "unreadable": unreadable}

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        """Each tensor once, with its name: updated ones first, then others of the models."""
        held = [
            (name.replace("_orig_mod.", ""), tensor)  # which torch.compile adds
            for model in self._models
            for pairs in (model.named_parameters(), model.named_buffers())
            for name, tensor in pairs
        ]
        names = {id(tensor): name for name, tensor in reversed(held)}
        tensors = self._parameters + [tensor for _, tensor in held]
        for number, tensor in enumerate(_new(tensors, [])):
            yield names.get(id(tensor), f"parameter {number}"), tensor


def _models_of(parameters: list[Tensor]) -> list[nn.Module]:
    """The outermost modules that hold any of these, in the parameters' order, larger ones first."""
    from torch import nn

    from hqtool.watch.optimizers import objects_of

    made = (each for each in objects_of(nn.Module) if "_modules" in vars(each))
    modules = list(made)  # without modules that are just being constructed
    inner = {id(child) for module in modules for child in module.children()}
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    ranked: list[tuple[int, int, int, nn.Module]] = []
    for module in modules:
        held = [places[id(each)] for each in module.parameters() if id(each) in places]
        if held and id(module) not in inner:
            ranked.append((min(held), -len(held), len(ranked), module))
    return [module for *_, module in sorted(ranked)]


def _new(things: list[Any], known: list[Any]) -> list[Any]:
    """The things that are not among the known ones, by identity, each once."""
    seen = set(map(id, known))
    return [each for each in things if not (id(each) in seen or seen.add(id(each)))]  # type: ignore[func-returns-value]
