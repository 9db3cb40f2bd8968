"""When products outside layers are looked for: as long as there may be some."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import nn

from hqtool.watch.function_mode import FunctionMode, Seen
from hqtool.watch.products import PRODUCTS

#: In eval mode they run by code of their own, unless somebody watches their functions.
_FAST_IN_EVAL = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer)

#: The step at which a parameter that has had no gradient so far is waited for no longer.
_LAST_AWAITED = 64


class ProductSwitch:
    """Has the products in this thread seen, from the first optimizer or forward pass on.

    Each call of a function of torch takes longer then. So it ends once every parameter that an
    optimizer updates is known to be a layer's, or goes on within modules alone once all products
    are known to be there. It begins anew with a further optimizer.

    Args:
        see: is called in place of a function of PRODUCTS.
        ever: False: nothing is ever to be seen.
    """

    def __init__(self, see: Seen, *, ever: bool) -> None:
        self._mode = FunctionMode(PRODUCTS, see)
        self._ever = self._within = self._outside = ever

    def optimizer_came(self) -> None:
        """There is an optimizer, or it updates more than before."""
        self._within = self._outside = self._ever
        self.pass_begins()

    def pass_begins(self) -> None:
        """A module is called from outside: in a thread, it may be, where none ever was."""
        if self._within and torch.is_grad_enabled():
            self._mode.put()

    def pass_ends(self) -> None:
        """It has ended."""
        if not self._outside and torch._C._len_torch_function_stack():
            self._mode.take_out()

    def judge(self, step: int, *, within: bool, outside: bool, are_awaited: bool) -> None:
        """See them no longer where there is no reason to.

        Args:
            step: the one that training is in.
            within: there are parameters that are no layer's.
            outside: some of their products are outside modules.
            are_awaited: there are parameters that have had no gradient so far.
        """
        more = are_awaited and step < _LAST_AWAITED
        self._within = self._ever and (within or more)
        self._outside = self._ever and (outside or more)
        if not self._within:
            self._mode.take_out()

    def end(self) -> None:
        """See no more."""
        self._ever = self._within = self._outside = False
        self._mode.take_out()

    def absent(self) -> AbstractContextManager[None]:
        """See none for the time of a `with` block."""
        return self._mode.absent()

    def hinders(self, module: nn.Module) -> bool:
        """Whether a module would run by other code if its functions were seen."""
        return self._within and not module.training and isinstance(module, _FAST_IN_EVAL)
