"""What a watcher calls while a network trains: all sites, quantized as a recipe says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, suppress
from time import perf_counter
from typing import Any

from torch import Tensor, nn

from hqtool.capture.tensors import stats_of_tensor
from hqtool.errors import DataError, HqtoolError, Stopped
from hqtool.estimators.plain_states import from_plain, to_plain
from hqtool.launch.process_rank import rank_of_group, rank_of_process
from hqtool.recipes.layer_facts import PRODUCT, LayerFacts
from hqtool.recipes.recipe import Recipe
from hqtool.recipes.recipe_file import to_json
from hqtool.recipes.trainable import require_trainable
from hqtool.training.call_operands import QuantizedCall
from hqtool.training.ranks.sites import RankSites
from hqtool.training.settings import TrainSettings
from hqtool.training.sites.layer_sites import LayerSites
from hqtool.training.sites.saved_state import SCHEMA
from hqtool.training.sites.trained_site import Place, TrainedSite, Treated
from hqtool.training.tensors.quantizing import Axes
from hqtool.training.told.coverage import Coverage
from hqtool.training.told.own_time import OwnTime
from hqtool.training.told.run_trace import RunTrace
from hqtool.vocab import TENSOR_KINDS, Decision, Site
from hqtool.watch.layer_call import LayerCall
from hqtool.watch.layer_types import LayerTypes, classes_of
from hqtool.watch.operands import CallPlace, RunningLayer
from hqtool.watch.position import Position
from hqtool.watch.reporter import Reporter


class NotFinite(Stopped):
    """A tensor holds NaN or infinities, and training was to stop there."""


class Trainer:
    """Quantizes the operands of layers, and lets estimators learn once a pass is known to train.

    It is both what acts on operands and what listens to the watcher.

    Args:
        trace: records what is quantized; None: nothing is written. Of a recipe that quantizes
            nothing, outputs and gradients of inputs are recorded.
        states: of estimators, to begin with; others begin anew.
        on_step: called after each step.

    Attributes:
        coverage: how much was quantized.
        sites: all that were met, in order.
        layers: the name of each layer that ran → its classes, in order.
        geometries: the name of each layer whose geometry is known → its keys in a layer spec.
        time: how much of it goes into quantizing.
        steps: how many steps ended.
        failed: what could not be watched → the first reason.
        ranks: lets the sites learn with those of other ranks.
    """

    active = True

    def __init__(
        self,
        recipe: Recipe,
        settings: TrainSettings,
        trace: RunTrace | None,
        states: Mapping[Site, Any] | None = None,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        require_trainable(recipe)
        plain = trace is not None and not recipe.tensors
        self.kinds: Collection[str] = ("output", "grad_input") if plain else ()
        self._states = dict(states or {})
        self._on_step = on_step
        self._recipe = recipe
        self._settings = settings
        self._trace = trace
        self._reporter: Reporter | None = None
        self._types = LayerTypes()
        self._layers: dict[str, LayerSites] = {}
        self._takes: dict[str, bool] = {}
        self._passes: dict[str, tuple[int, int, int, int]] = {}
        self._evaluated: Counter[str] = Counter()
        self.geometries: dict[str, Mapping[str, Any]] = {}
        self._described: set[str] = set()
        self.coverage = Coverage()
        self.sites: dict[Site, TrainedSite] = {}
        self.layers: dict[str, tuple[str, ...]] = {}
        self.failed: dict[str, str] = {}
        self.ranks = RankSites(self.sites, settings.rank_timeout_seconds if recipe.tensors else 0)
        self.time = OwnTime()
        self.steps = 0
        self._last_step = -1
        self._taken_for_last: list[str] = []
        self._ran_last: str | None = None

    def report_through(self, reporter: Reporter) -> None:
        """Learn where gradients belong from here."""
        self._reporter = reporter

    # --- going on from a checkpoint

    def state_dict(self) -> dict[str, Any]:
        """What is known after all steps that have ended; see `hqtool.training.state_dict`."""
        self.ranks.settle()
        step = self._last_step + 1
        met = {site: each.state_before(step) for site, each in self.sites.items()}
        return {
            "schema": SCHEMA,
            "recipe": self._rules(),
            "step": step,
            "evaluated": dict(self._evaluated),
            "sites": {str(site): to_plain(each) for site, each in (self._states | met).items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Raises:
            DataError: it was saved under a recipe of other rules.
        """
        if state["recipe"] != self._rules():
            cause = f"the saved state of training is of another recipe than {self._recipe.name}"
            raise DataError(cause, "train with the recipe that it was saved under")
        self._evaluated = Counter(state["evaluated"])
        for name, plain in state["sites"].items():
            site = Site(*name.rsplit("/", 1))
            self._states[site] = from_plain(plain)
            if site in self.sites:
                self.sites[site].go_on_from(self._states[site])
                self._has_begun(self.sites[site])

    def _rules(self) -> str:
        """The recipe's rules in one text, whatever it is called."""
        top = to_json(self._recipe)
        return json.dumps([top.get("ste"), top["rule"]])

    # --- acting on operands

    def begin(self, layer: RunningLayer) -> QuantizedCall:
        """A layer begins to run."""
        name = layer.place.name
        if name not in self._layers:
            self._layers[name] = self._sites_of(layer)
        return QuantizedCall(self, layer.place, self._layers[name])

    def takes(self, product: str) -> bool:
        """Whether a rule names a product of two activations."""
        if product not in self._takes:
            facts = LayerFacts(product, (PRODUCT,))
            kinds = [kind for kind in TENSOR_KINDS if self._recipe.quantizer(facts, kind)]
            self._takes[product] = bool(kinds)
            self.layers[product] = (PRODUCT,)
        return self._takes[product]

    def left_alone(self, multiplications: int) -> None:
        """A product of two activations ran that no rule names."""
        self.coverage.unnamed += multiplications

    def out_of_reach(self, reason: str, multiplications: int) -> None:
        """A product ran whose operands cannot be replaced."""
        self.coverage.missed[reason] += multiplications

    def place(self, layer: CallPlace, *, trains: bool) -> Place:
        """What the noise of a call's tensors is keyed by.

        Passes that only evaluate are numbered from 2^32 on, for their noise to be another.
        """
        self.ranks.settle()
        name, step = layer.name, layer.step
        if not trains:
            self._evaluated[name] += 1
            return Place(step, (1 << 32) + self._evaluated[name], 0)
        number = -1 if layer.call is None else layer.call.forward.number
        last = self._passes.get(name)
        if last is None or last[0] != step:
            here = (step, number, 0, 0)
        elif last[1] == number and number != -1:
            here = (step, number, last[2], last[3] + 1)
        else:
            here = (step, number, last[2] + 1, 0)
        self._passes[name] = here
        return Place(step, here[2], here[3])

    def arrived(self, call: LayerCall) -> tuple[str, Position, float] | None:
        """Where a gradient belongs that has arrived at a call; see `Reporter.arrived`."""
        return None if self._reporter is None else self._reporter.arrived(call)

    def check(self, site: TrainedSite, treated: Treated) -> None:
        """Raises: NotFinite: the tensor is not finite, and training is to stop there.

        A gradient under a loss scale above 1 may have overflowed because of it. The scaler then
        skips the update and lowers the scale, so what does not overflow because of it comes again
        at a scale of 1 or below.
        """
        stats = treated.stats
        if self._settings.on_nonfinite != "stop" or stats is None or treated.is_finite:
            return
        if not treated.overflows:
            what = f"{stats.nnan} NaN and {stats.ninf} infinities"
            cause = f"{site.site} is not finite at step {treated.place.step}: {what}"
            raise NotFinite(cause, "train with a wider recipe, or with --on-nonfinite keep")

    def trained(self, site: TrainedSite, position: Position, treated: Treated) -> None:
        """A tensor belongs to training, at this position."""
        site.teach(treated, position.step)
        if self._trace is not None:
            self._trace.write(site.site, position, treated)

    def let_pass(self, site: TrainedSite, why: str) -> None:
        """A tensor of the site stays as it is; its user is told."""
        self.failed.setdefault(str(site.site), why)

    def _sites_of(self, layer: RunningLayer) -> LayerSites:
        """Make the sites of a layer that runs for the first time."""
        facts = self._facts(layer)
        self.layers[layer.place.name] = facts.types or ()
        found = {}
        for kind in TENSOR_KINDS:
            quantizer = self._recipe.quantizer(facts, kind)
            if quantizer is None or kind not in layer.kinds:
                continue
            of_weight = kind in ("weight", "grad_weight")
            site = TrainedSite(
                Site(layer.place.name, kind),
                quantizer,
                self._settings.seed if kind == "weight" else seed_of_rank(self._settings.seed),
                Axes(layer.channel_axis, layer.output_axis if of_weight else None),
                records_all=self._trace is not None or self._settings.on_nonfinite == "stop",
                divides=self._settings.loss_scale == "divided",
            )
            if site.site in self._states:
                site.state = self._states[site.site]
                self._has_begun(site)
            self.ranks.met(site)
            self.sites[site.site] = found[kind] = site
        return LayerSites(found, self._recipe.straight_through(facts))

    def _has_begun(self, site: TrainedSite) -> None:
        """A site has got a state from elsewhere: where that is before its first tensor, note it."""
        if self._trace is not None and not site.records:
            self._trace.began(site.site, site.quantizer.label, site.state)

    def _facts(self, layer: RunningLayer) -> LayerFacts:
        """A layer as rules see it.

        A product of two activations is neither first nor last. The first layer is that which runs
        first. Which one runs last is not known before the first pass has ended: it is taken to be
        the last one among its model's modules.
        """
        if layer.is_product:
            return LayerFacts(layer.place.name, (PRODUCT,))
        is_last = self._is_last(layer.module, layer.root())
        self._taken_for_last += [layer.place.name] if is_last else []
        return LayerFacts(
            layer.place.name,
            classes_of(layer.module),
            first=all(types == (PRODUCT,) for types in self.layers.values()),
            last=is_last,
        )

    def _is_last(self, module: nn.Module, root: nn.Module) -> bool:
        layers = [each for each in root.modules() if self._types.is_named(each)]
        return bool(layers) and layers[-1] is module

    @property
    def wrongly_last(self) -> tuple[str, str] | None:
        """Which layer was taken for the last one, and which ran last in the first step.

        None where they are the same, or no rule asks for the last one.
        """
        taken, ran = self._taken_for_last, self._ran_last
        asked = any(rule.last for rule in self._recipe.rules)
        return (taken[-1], ran) if asked and taken and ran and ran not in taken else None

    # --- listening

    def guard(self, what: Site | str) -> AbstractContextManager[None, bool]:
        """Keeps failures to watch training from it; what ends training on purpose passes."""
        return _Guard(self, what)

    def asks_for(self, layer: str) -> bool:
        """All layers are watched: the recipe says which are quantized."""
        return True

    def read(
        self, tensor: Tensor, step: int, channel_axis: int = -1, entry_axis: int | None = None
    ) -> Treated | None:
        """Read a tensor that is left as it is."""
        if not (tensor.is_floating_point() and tensor.numel()) or tensor.is_nested:
            return None
        shape, stats = tuple(tensor.shape), stats_of_tensor(tensor)
        return Treated(Decision(None), None, shape, stats, Place(step, 0, 0))

    def record(self, site: Site, position: Position, reading: Any, loss_scale: float = 1.0) -> None:
        """What was done to a tensor of a forward pass, now that the pass trains."""
        assert isinstance(reading, Treated)
        if site in self.sites:
            self.trained(self.sites[site], position, reading)
        elif self._trace is not None:
            self._trace.write(site, position, reading._replace(loss_scale=loss_scale), plain=True)

    def describe(
        self, layer: str, geometry: Callable[[], Mapping[str, Any]], classes: tuple[str, ...] = ()
    ) -> None:
        """Keep a layer's geometry, once; one of unknown geometry is left without."""
        if layer in self._described:
            return
        self._described.add(layer)
        with suppress(Exception):
            self.geometries[layer] = geometry()
        if self._trace is not None:
            self._trace.describe(layer, self.geometries.get(layer), classes)

    def count(self, event: str, number: int = 1) -> None:
        """Nothing is counted."""

    def commit(self, step: int) -> None:
        """A step has ended."""
        if step != self._last_step:
            self.steps, self._last_step = self.steps + 1, step
        if self._ran_last is None:
            layers = [name for name, types in self.layers.items() if types != (PRODUCT,)]
            self._ran_last = layers[-1] if layers else None
        self.ranks.step_ended(step)
        if self._trace is not None:
            began = perf_counter()
            self._trace.commit(step)
            self.time.end(began)
        self._on_step()

    def name_optimizers(self, step: int, names: tuple[str, ...]) -> None:
        """Which optimizers ended a step."""
        if self._trace is not None:
            self._trace.name_optimizers(step, names)


class _Guard:
    """Notes failures; see `Trainer.guard`."""

    def __init__(self, trainer: Trainer, what: Site | str) -> None:
        self._trainer, self._what = trainer, what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or isinstance(error, HqtoolError):
            return False
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        self._trainer.failed.setdefault(str(self._what), text)
        return True


def seed_of_rank(seed: int) -> int:
    """The seed of this rank's noise: independent between ranks, as between the parts of a batch.

    Weights, which are the same on all ranks, are quantized with the same noise on all.
    """
    rank = (rank_of_group() or rank_of_process()).get("rank", 0)
    return seed + (rank << 32)
