"""Intercepting products outside layers as long as there may be some, and no longer."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.nn import functional as F

from hqtool.watch.function_mode import FunctionHandler, FunctionMode
from hqtool.watch.products import PRODUCTS

#: In eval mode these modules run fast code of their own, unless functions are intercepted.
_FAST_IN_EVAL = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer)

#: From this step on, parameters that have had no gradient so far are not waited for any more.
_LAST_AWAITED = 64


class ProductSwitch:
    """Intercepts the products in this thread, from the first optimizer or forward pass on.

    That makes each call of a function of torch slower. So it ends once every parameter that an
    optimizer updates is known to be used by a layer, and is limited to modules once all products
    are known to be within modules. It starts again with a new optimizer.

    Args:
        see: is called in place of a function of PRODUCTS.
        ever: False: never intercept anything.
        always: intercept all products, in passes without gradients, too, and
            `F.scaled_dot_product_attention`, which computes two.
    """

    def __init__(self, see: FunctionHandler, *, ever: bool, always: bool = False) -> None:
        functions = {*PRODUCTS, F.scaled_dot_product_attention} if always else PRODUCTS
        self._mode = FunctionMode(functions, see)
        self._ever = self._within = self._outside = ever
        self._always = always
        self._is_paused = False

    def optimizer_came(self) -> None:
        """There is a new optimizer, or one updates more than before."""
        self._within = self._outside = self._ever
        self.pass_begins()

    def pass_begins(self) -> None:
        """A module is called from outside all modules, perhaps in a new thread.

        Or a part of one runs again within a backward pass: torch switches modes off for that.
        """
        if self._within and (self._always or torch.is_grad_enabled()):
            self._mode.install()

    def pass_ends(self) -> None:
        """The call of a module from outside all modules has ended."""
        if not self._outside and torch._C._len_torch_function_stack():
            self._mode.remove()

    def update_begins(self) -> None:
        """An optimizer begins to step, without a closure: its own products are no layers."""
        if self._mode.is_on():
            self._is_paused = True
            self._mode.remove()

    def update_ends(self) -> None:
        """An optimizer has stepped."""
        if self._is_paused:
            self._is_paused = False
            self._mode.install()

    def judge(self, step: int, *, within: bool, outside: bool, are_awaited: bool) -> None:
        """Stop intercepting products where there is no reason to go on.

        Args:
            step: the one that training is in.
            within: some parameters are used outside layers.
            outside: some of them are used outside all modules.
            are_awaited: some parameters have had no gradient so far.
        """
        more = self._always or (are_awaited and step < _LAST_AWAITED)
        self._within = self._ever and (within or more)
        self._outside = self._ever and (outside or more)
        if not self._within:
            self._mode.remove()

    def end(self) -> None:
        """Stop intercepting, for good."""
        self._ever = self._within = self._outside = self._is_paused = False
        self._mode.remove()

    def absent(self) -> AbstractContextManager[None]:
        """Intercept no products for the time of a `with` block."""
        return self._mode.absent()

    def hinders(self, module: nn.Module) -> bool:
        """Whether a module would run other code if its functions were intercepted.

        Where all products are intercepted, it is to run that code: the fast one hides them.
        """
        if self._always:
            return False
        return self._within and not module.training and isinstance(module, _FAST_IN_EVAL)
