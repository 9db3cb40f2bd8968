"""Acting on the operands and the result of one call of a layer, forward and backward (figure 1).

Forward, X and W are quantized before they are multiplied, Y after. Backward the gradient that
arrives is 0 where Y was saturated, and then quantized as G_Y, for both of the layer's products.
G_X is quantized before anything is added to it, and then 0 where X was saturated; so is G_W with W.
The layer's own kernels multiply. Where a site has no quantizer, nothing is put around its tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from hqtool.training.sites.layer_sites import LayerSites
from hqtool.training.sites.trained_site import Place, TrainedSite, Treated
from hqtool.training.tensors.quantized import Quantized
from hqtool.training.told.coverage import Coverage
from hqtool.training.told.own_time import OwnTime
from hqtool.watch.layer_call import LayerCall
from hqtool.watch.operands import CallPlace
from hqtool.watch.position import Position
from hqtool.watch.tensor_types import Unseen, has_values, is_transformed

#: Quantizes a tensor as one of a site; it is told whether the tensor may be overwritten.
Treatment = Callable[[Tensor, bool], Quantized]


class Run(Protocol):
    """What a call needs of the run that it is part of; see `hqtool.training.trainer.Trainer`."""

    coverage: Coverage
    time: OwnTime

    def place(self, layer: CallPlace, *, trains: bool) -> Place:
        """What the noise of the call's tensors is keyed by."""

    def arrived(self, call: LayerCall) -> tuple[str, Position, float] | None:
        """Where a gradient belongs that has arrived, and the loss scale that it carries."""

    def check(self, site: TrainedSite, treated: Treated) -> None:
        """Raises where training is to stop."""

    def trained(self, site: TrainedSite, position: Position, treated: Treated) -> None:
        """A tensor belongs to training."""

    def let_pass(self, site: TrainedSite, why: str) -> None:
        """A tensor of the site stays as it is."""


class _Around(torch.autograd.Function):
    """Forward one treatment, backward another one of the gradient, which the first one masks.

    Args (of `apply`):
        x: the tensor.
        forth: its treatment; None: it stays.
        back: that of its gradient.
        masks_first: the mask comes before the gradient's treatment, not after it. Then the gradient
            may be others' as well; else the layer's own product has made it.
        ste: 'clipped' or 'full'.
        owned: the tensor may be overwritten.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        forth: Treatment | None,
        back: Treatment | None,
        masks_first: bool,
        ste: str,
        owned: bool,
    ) -> Tensor:
        done = Quantized(x.view_as(x), None) if forth is None else forth(x, owned)
        ctx.save_for_backward(done.clipped if ste == "clipped" else None)
        ctx.back, ctx.masks_first, ctx.ste = back, masks_first, ste
        return done.values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (mask,) = ctx.saved_tensors
        owned = not ctx.masks_first
        if mask is not None and ctx.masks_first:
            gradient, owned = gradient.masked_fill(mask, 0), True
        if ctx.back is not None:
            gradient = straight_through(gradient, ctx.back, ctx.ste, owned)
        if mask is not None and not ctx.masks_first:
            gradient = gradient.masked_fill(mask, 0)
        return gradient, None, None, None, None, None


def unseen(treat: Treatment, run: Run, site: TrainedSite) -> Treatment:
    """A treatment, timed, whose operations are seen by no mode and no subclass of the script.

    A mode of the script that sees what operators compute may keep it: it is not overwritten then.
    One that selects what is computed again counts operators, and expects the same ones again.
    A gradient that stands for several ones has no values to be quantized.
    """
    time = run.time

    def treated(x: Tensor, owned: bool) -> Quantized:
        if is_transformed(x):
            run.let_pass(site, "one backward pass took several gradients at once")
            return Quantized(x, None)
        began = time.begin(x)
        if torch._C._len_torch_dispatch_stack():
            with Unseen(), torch._C._DisableTorchDispatch():
                found = treat(x.detach(), False)
        else:
            with Unseen():
                found = treat(x.detach(), owned)
        time.end(began)
        return found

    return treated


def straight_through(gradient: Tensor, treat: Treatment, ste: str, owned: bool = False) -> Tensor:
    """A gradient treated, so that it can be differentiated again."""
    if is_transformed(gradient) or not (torch.is_grad_enabled() and gradient.requires_grad):
        return treat(gradient, owned).values
    around: Tensor = _Around.apply(gradient, treat, None, False, ste, False)  # type: ignore[no-untyped-call]
    return around


class QuantizedCall:
    """The operands of one call of a layer: `CallOperands` of a recipe.

    Args:
        trainer: what holds the sites, and is told what comes.
        layer: where the call belongs.
        sites: the layer's, by tensor kind.
    """

    def __init__(self, trainer: Run, layer: CallPlace, sites: LayerSites) -> None:
        self._trainer, self._layer, self._sites = trainer, layer, sites
        self._place: Place | None = None

    @property
    def acts(self) -> bool:
        return self._sites.any

    def left(self, x: Tensor) -> Tensor:
        return self._around(x, "input", "grad_input", masks_first=False)

    def right(self, weight: Tensor) -> Tensor:
        return self._around(weight, "weight", "grad_weight", masks_first=False)

    def result(self, y: Tensor, *, is_product: bool = False) -> Tensor:
        if not isinstance(y, Tensor) or not _is_real(y):
            return y
        if self._sites.of("output") is not None:
            return self._around(y, "output", "grad_output", masks_first=True, owned=is_product)
        site = self._sites.of("grad_output")
        if site is not None and y.requires_grad:  # as a hook it may be changed in place later
            treat = unseen(self._treatment_of_gradient(site), self._trainer, site)
            y.register_hook(lambda g: straight_through(g, treat, self._sites.ste))  # type: ignore[no-untyped-call]
        return y

    def ran(
        self, multiplications: int, *, weighted: bool = True, weight_alone: bool = False
    ) -> None:
        coverage = self._trainer.coverage
        if not self._sites.any:
            coverage.excluded += multiplications
        elif weighted:
            coverage.quantized += multiplications
            coverage.weight_alone += multiplications if weight_alone else 0
        else:
            coverage.missed[
                "recurrent layers' own products (inputs and outputs are quantized)"
            ] += multiplications

    def _around(
        self, x: Tensor, kind: str, back: str, *, masks_first: bool, owned: bool = False
    ) -> Tensor:
        site, of_gradient = self._sites.of(kind), self._sites.of(back)
        if (site is None and of_gradient is None) or not _is_real(x):
            return x
        run = self._trainer
        forth = None if site is None else unseen(self._treatment(site), run, site)
        if not (torch.is_grad_enabled() and _requires_grad(x)):
            return x if forth is None else forth(x, owned).values
        treat = None
        if of_gradient is not None:
            treat = unseen(self._treatment_of_gradient(of_gradient), run, of_gradient)
        how = (forth, treat, masks_first, self._sites.ste, owned)
        around: Tensor = _Around.apply(x, *how)  # type: ignore[no-untyped-call]
        return around

    # Forward

    def _treatment(self, site: TrainedSite) -> Treatment:
        """How a tensor of the forward pass is treated; what is read waits with the call."""

        def treat(x: Tensor, owned: bool) -> Quantized:
            layer, segment = self._layer, self._layer.segment
            if layer.recomputes and segment is None:
                treated = site.last
                if treated is None:
                    return self._first(site, x, owned)[1]
                return site.again(x, treated, owned)
            if segment is None:
                treated, done = self._first(site, x, owned)
            else:
                made: list[Quantized] = []

                def make() -> Treated:
                    treated, done = self._first(site, x, owned)
                    made.append(done)
                    return treated

                treated = segment.again(make)
                done = made[0] if made else site.again(x, treated, owned)
            if layer.call is not None:
                layer.call.readings.append((site.site.tensor, treated))
            return done

        return treat

    def _first(self, site: TrainedSite, x: Tensor, owned: bool) -> tuple[Treated, Quantized]:
        """Treat a tensor that is not one computed again."""
        layer = self._layer
        may_train = layer.call is not None or layer.segment is not None
        if self._place is None:
            self._place = self._trainer.place(layer, trains=may_train)
        treated, done = site.treat(x, self._place, trains=may_train, owned=owned)
        if may_train:
            site.last = treated
            self._trainer.check(site, treated)
        return treated, done

    # Backward

    def _treatment_of_gradient(self, site: TrainedSite) -> Treatment:
        def treat(gradient: Tensor, owned: bool) -> Quantized:
            call = self._layer.call
            arrived = None if call is None else self._trainer.arrived(call)
            if arrived is None:
                place = self._trainer.place(self._layer, trains=False)
                return site.treat(gradient, place, trains=False, owned=owned)[1]
            _, position, factor = arrived
            place = Place(*position)
            treated, done = site.treat(gradient, place, trains=True, loss_scale=factor, owned=owned)
            self._trainer.check(site, treated)
            self._trainer.trained(site, position, treated)
            return done

        return treat


def _is_real(x: Tensor) -> bool:
    """Whether a tensor can be quantized: it is dense, with floating-point values of its own."""
    with Unseen():
        dense = x.layout is torch.strided and not x.is_nested
        return x.is_floating_point() and dense and has_values(x) and x.numel() > 0


def _requires_grad(x: Tensor) -> bool:
    with Unseen():
        return x.requires_grad
