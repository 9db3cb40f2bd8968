"""Intercepting all calls of modules: which are calls of layers, and what is read of them."""

from __future__ import annotations

import functools
import itertools
import math
import sys
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import FrameType, FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from hqtool.patch import replaced
from hqtool.recipes.layer_facts import PRODUCT
from hqtool.vocab import TENSOR_KINDS
from hqtool.watch.activation_products import described, next_part
from hqtool.watch.attention import (
    PRODUCTS_OF_ATTENTION,
    Attention,
    AttentionSwitch,
    attend_by_products,
    multiplications_of_attention,
    scores_of,
)
from hqtool.watch.checkpoints import Checkpoints
from hqtool.watch.function_mode import FunctionMode
from hqtool.watch.input_gradient import InputGradient
from hqtool.watch.layer_call import ForwardPass, LayerCall
from hqtool.watch.layer_types import (
    LAYER_TYPES,
    LayerTypes,
    channel_axis_of,
    geometry_of,
    linear_geometry,
    output_axis_of,
)
from hqtool.watch.listener import Listener
from hqtool.watch.names import Frame, Names, Surroundings, full_name
from hqtool.watch.operands import (
    CallOperands,
    CallPlace,
    Operands,
    RunningLayer,
    multiplied,
    with_operands,
)
from hqtool.watch.optimizers import Optimizers
from hqtool.watch.parameter_owners import Owners, parameter_of, parameters_behind
from hqtool.watch.product_switch import ProductSwitch
from hqtool.watch.products import PRODUCTS, Product, product_of
from hqtool.watch.recurrent import KERNELS, is_recurrent, matrices_of, with_first_tensor
from hqtool.watch.reporter import Reporter
from hqtool.watch.steps import Steps, backward_pass
from hqtool.watch.tensor_types import (
    Unseen,
    dense_of,
    has_values,
    is_tracing,
    is_transformed,
    running_transform,
    why_unreadable,
)
from hqtool.watch.unrecorded import Unrecorded

#: Classes whose forward method is watched, too: scripts call it directly.
FORWARD_TYPES = (*LAYER_TYPES, nn.Bilinear, nn.MultiheadAttention)


#: Why some products of two activations are not quantized.
_OF_ACTIVATIONS = "products of two activations outside all modules, or of nested tensors"

#: The tensor kinds of most layers.
_ALL_KINDS = tuple(TENSOR_KINDS)

#: Those of recurrent layers; each of their weights is a layer of its own.
_KINDS_OF_RECURRENT = ("output", "grad_input", "input", "grad_output")


class _Running(threading.local):
    """What is running in this thread.

    Attributes:
        frames: the running calls of modules, outermost first.
        attentions: those of attention modules whose products are read.
        forward: the pass of the outermost module, once a layer in it is read.
        recomputed: the pass of the modules that ran last within a backward pass.
        outside: the pass of products outside modules.
        without_gradients: the pass of the outermost module has been counted as one without.
    """

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.attentions: list[Attention] = []
        self.forward: ForwardPass | None = None
        self.recomputed: ForwardPass | None = None
        self.outside: weakref.ref[ForwardPass] | None = None
        self.without_gradients = False


#: Layer name and shape of its input → the keys of a layer spec.
_Geometry = Callable[[str, torch.Size], dict[str, Any]]


class _Layer(NamedTuple):
    """The layer that is called.

    Args:
        module, part: see `LayerCall`.
        parameter: the module's parameter that a function multiplies with; None where the layer
            is a module, or a product of two activations.
        is_product: it multiplies two activations, in the module's forward pass.
        kinds: the tensor kinds that it has.
    """

    module: nn.Module
    part: str
    channel_axis: int
    parameter: Tensor | None = None
    is_product: bool = False
    kinds: Collection[str] = _ALL_KINDS


class ModuleCalls:
    """Reads the layers among all modules called, with gradients enabled.

    A function that multiplies with a parameter, outside the layers, is a layer, too: it is named
    after the parameter. Functions outside all modules form one forward pass until a backward pass
    comes, or the step ends.

    A forward pass that runs within a backward pass computes activations again (checkpointing). Its
    layers are read unless they were read the first time, which only happens with gradients enabled.
    Segments are computed again from the last to the first, and calls of a layer that several
    segments share are numbered in that order.

    Args:
        with_evaluation: read modules in eval mode without gradients, too, and do not wait for a
            backward pass.
        operands: acts on the operands of all layers, also where they only evaluate.

    Attributes:
        passes_begun: how many forward passes ran with gradients enabled.
        passes_without_gradients: how many ran with gradients disabled, such as to evaluate.
        products: intercepts the functions that multiply.
    """

    def __init__(
        self,
        listener: Listener,
        names: Names,
        types: LayerTypes,
        steps: Steps,
        optimizers: Optimizers,
        reporter: Reporter,
        unrecorded: Unrecorded,
        owners: Owners,
        *,
        with_evaluation: bool,
        operands: Operands | None = None,
    ) -> None:
        self._listener = listener
        self._operands = operands
        self._checkpoints = Checkpoints(runs_again=lambda: self.products.pass_begins())
        self._names = names
        self._types = types
        self._steps = steps
        self._optimizers = optimizers
        self._reporter = reporter
        self._unrecorded = unrecorded
        self._owners = owners
        self._with_evaluation = with_evaluation
        self._running = _Running()
        self._numbers = itertools.count()
        self._read_at: weakref.WeakKeyDictionary[nn.Module, dict[str, int]]
        self._read_at = weakref.WeakKeyDictionary()  # by part: the step of its last pass
        self._evaluated: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._with_computed_weight: weakref.WeakSet[nn.Module] = weakref.WeakSet()
        self._attention_switch = AttentionSwitch(self._wraps_of_attention())
        self.products = ProductSwitch(
            self._see_function, ever=not types.are_chosen, always=operands is not None
        )
        self.passes_begun = self.passes_without_gradients = 0

    def attach(self, stack: ExitStack) -> None:
        """Watch until the stack is closed."""
        stack.callback(self.products.end)
        if self._operands is not None:
            self._checkpoints.attach(stack)
        stack.enter_context(replaced(nn.Module, "__call__", self._wrap_call))
        for kind in FORWARD_TYPES:
            if "forward" in vars(kind):
                stack.enter_context(replaced(kind, "forward", self._wrap_forward))

    # Every call

    def _wrap_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make the replacement of `nn.Module.__call__`.

        A replacement is needed, for torch's global hooks get no keyword arguments, and are not
        called where a KeyboardInterrupt ends a forward pass.
        """

        @functools.wraps(original)
        def call(module: nn.Module, /, *args: Any, **kwargs: Any) -> Any:
            if not self._is_watching():
                return original(module, *args, **kwargs)
            running = self._running
            if not running.frames:
                self._pass_begins(module)
            running.frames.append(Frame(module))
            try:
                if self.products.hinders(module):
                    with self.products.absent():
                        return self._run(functools.partial(original, module), module, args, kwargs)
                if not self._types.is_named(module) and not _is_scripted(module):
                    return original(module, *args, **kwargs)  # models nest deep: no more frames
                return self._run(functools.partial(original, module), module, args, kwargs)
            finally:
                running.frames.pop()
                if not running.frames:
                    running.forward, running.without_gradients = None, False
                    self.products.pass_ends()

        return call

    def _pass_begins(self, module: nn.Module) -> None:
        self.products.pass_begins()
        if torch.is_grad_enabled():
            self._unrecorded.model_ran(module)

    def _is_watching(self) -> bool:
        return self._listener.active and not is_tracing()

    def _wrap_forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make the replacement of a class's forward method, for scripts that call it directly.

        torch.jit compiles the original's source, but looks names up in the globals of the function
        it is given: so the replacement gets the original's globals.
        """
        watched, is_own = self._wrap_call(original), self._is_own

        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return (original if is_own(self) else watched)(self, *args, **kwargs)

        twin = FunctionType(
            forward.__code__, original.__globals__, "forward", None, forward.__closure__
        )
        return functools.wraps(original)(twin)

    def _is_own(self, module: nn.Module) -> bool:
        """Whether the innermost call that runs is the module's own."""
        frames = self._running.frames
        return bool(frames) and frames[-1].module is module

    def _run(
        self,
        compute: Callable[..., Any],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if self._types.is_layer(module):
            return self._run_layer(compute, module, args, kwargs)
        if self._types.is_attention(module):
            return self._run_attention(compute, Attention(module), args, kwargs)
        if torch.is_grad_enabled() and _is_scripted(module):
            with self._listener.guard("names"):
                if self._names.of(module, self._running.frames):
                    self._unrecorded.compiled(module)
        return compute(*args, **kwargs)

    # Layers

    def _run_layer(
        self,
        compute: Callable[..., Any],
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        weight = module._parameters.get("weight")
        reference = weakref.ref(module)

        def run(operands: CallOperands | None) -> Any:
            if operands is None:
                return compute(*args, **kwargs)
            if is_recurrent(module):
                return self._run_recurrent(module, operands, compute, args, kwargs)
            with FunctionMode(PRODUCTS, self._within_layer(module, weight, operands)):
                return compute(*args, **kwargs)

        def geometry(name: str, shape: torch.Size) -> dict[str, Any]:
            layer = reference()
            return {} if layer is None else geometry_of(name, layer, shape)

        kinds = _KINDS_OF_RECURRENT if is_recurrent(module) else _ALL_KINDS
        layer = _Layer(module, "", channel_axis_of(module), kinds=kinds)
        return self._through(layer, _input_of(args, kwargs), run, geometry, weight)

    def _within_layer(
        self, module: nn.Module, weight: Tensor | None, operands: CallOperands
    ) -> Callable[..., Any]:
        """What is called in place of functions that multiply within a layer's forward pass.

        The first one that multiplies with the layer's weight gets other operands.
        """
        waiting = [operands]

        def see(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
            product = None
            if waiting and self._is_own(module):
                with Unseen():
                    product = product_of(function, args, kwargs)
            if product is None or not (product.right is weight or not product.is_symmetric):
                return function(*args, **kwargs)
            waiting.clear()
            y = multiplied(function, args, kwargs, operands, product.left, product.right)
            with Unseen():
                operands.ran(product.multiplications(y))
            return y

        return see

    def _run_recurrent(
        self,
        module: nn.Module,
        operands: CallOperands,
        compute: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run a recurrent layer with other input, weights and output."""
        (args, kwargs), x = with_first_tensor((args, kwargs), operands.left)
        steps = 0 if x is None else x.numel() // max(1, x.shape[-1])

        def see(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
            pairs = [
                (matrix, self._matrix(module, name, matrix, operands, steps))
                for name, matrix in matrices_of(module, args)
            ]
            args, kwargs = with_operands(args, kwargs, pairs)
            return function(*args, **kwargs)

        with FunctionMode(KERNELS, see):
            result = compute(*args, **kwargs)
        return with_first_tensor(result, operands.result)[0]

    def _matrix(
        self, module: nn.Module, name: str, matrix: Tensor, operands: CallOperands, steps: int
    ) -> Tensor:
        """What a recurrent layer multiplies with in place of a matrix: a layer named after it.

        Args:
            operands: of the recurrent layer.
            steps: how many vectors it is multiplied with.
        """
        layer = _Layer(module, name, -1, kinds=("weight", "grad_weight"))
        call = self._begin(layer)
        own = self._operands_of(layer, matrix, call)
        if own is None or not own.acts:
            operands.ran(steps * matrix.numel(), weighted=False)
            return matrix
        own.ran(steps * matrix.numel(), weight_alone=True)
        quantized = own.right(matrix)
        if call is not None:
            op = type(module).__name__
            call.geometry = lambda layer: {"name": layer, "op": op}
            self._reporter.finished(call)
        return quantized

    def _run_attention(
        self,
        compute: Callable[..., Any],
        attention: Attention,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        self._running.attentions.append(attention)
        try:
            with self._attention_switch.on():
                return compute(*args, **kwargs)
        finally:
            self._running.attentions.pop()

    def _wraps_of_attention(self) -> dict[tuple[Any, str], Callable[[Any], Any]]:
        """What makes the replacements of functions while attentions run."""
        wraps: dict[tuple[Any, str], Callable[[Any], Any]] = {(F, "linear"): self._wrap_linear}
        if self._operands is None:
            return wraps
        wraps |= {(torch, name): self._wrap_product for name in ("bmm", "baddbmm")}
        return wraps | {(F, "scaled_dot_product_attention"): self._wrap_attend}

    def _wrap_product(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make the replacement of a function that multiplies two activations within attention."""

        @functools.wraps(original)
        def multiply(*args: Any, **kwargs: Any) -> Any:
            attention = self._innermost_attention()
            part = None if attention is None else attention.next_product()
            product = None if part is None else product_of(original, args, kwargs)
            if attention is None or part is None or product is None:
                return original(*args, **kwargs)
            layer = _Layer(attention.module, part, -1, is_product=True)
            return self._multiply(layer, product, original, args, kwargs)

        return multiply

    def _wrap_attend(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make the replacement of `F.scaled_dot_product_attention`, while attentions run."""

        @functools.wraps(original)
        def attend(*args: Any, **kwargs: Any) -> Any:
            attention = self._innermost_attention()
            if attention is None:
                return original(*args, **kwargs)
            module = attention.module
            layers = [_Layer(module, part, -1, is_product=True) for part in PRODUCTS_OF_ATTENTION]
            return self._attend(layers, original, args, kwargs)

        return attend

    def _wrap_linear(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Make the replacement of `F.linear`, while attentions run."""

        @functools.wraps(original)
        def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
            attention = self._innermost_attention()
            if attention is None:
                return original(input, weight, bias)
            part = attention.next_part(weight.shape[0])
            rows, columns = weight.shape

            def project(operands: CallOperands | None) -> Any:
                if operands is None:
                    return original(input, weight, bias)
                operands.ran(input.numel() * rows)
                return multiplied(original, (input, weight, bias), {}, operands, input, weight)

            def geometry(name: str, shape: torch.Size) -> dict[str, Any]:
                return linear_geometry(name, columns, rows, shape)

            layer = _Layer(attention.module, part, -1)
            return self._through(layer, input, project, geometry, weight)

        return linear

    def _innermost_attention(self) -> Attention | None:
        """The attention whose own code is running, not that of a module within."""
        for attention in self._running.attentions[-1:]:
            if self._is_own(attention.module):
                return attention
        return None

    # Functions

    def _see_function(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Called in place of a function that multiplies."""
        if self._operands is not None and self._within_own_function():
            return self._left_in_function(function, args, kwargs)
        if function is F.scaled_dot_product_attention:
            if not (self._is_watching() and self._may_read_functions()):
                return function(*args, **kwargs)
            layers = [self._product_here(part) for part in PRODUCTS_OF_ATTENTION]
            return self._attend(layers, function, args, kwargs)
        found, product = None, None
        if self._is_watching() and self._may_read_functions():
            with self._listener.guard("products"), Unseen():
                product = product_of(function, args, kwargs)
                found = None if product is None else self._with_parameter(product)
        if product is None or (found is None and self._operands is None):
            return function(*args, **kwargs)
        if found is None:
            here = self._product_here(PRODUCT)
            return self._multiply(here, product, function, args, kwargs)
        layer, x, geometry, weight, parameter = found
        run = _multiplied_by(function, args, kwargs, x, weight, product.multiplications)
        return self._through(layer, x, run, geometry, parameter)

    def _within_own_function(self) -> bool:
        """Whether a function of autograd runs that the script has defined, in a module's pass.

        Its backward pass is its own, too: what it multiplies cannot be quantized in both, or learn.
        A part of a model that is computed again runs within such a function of torch.
        """
        if torch.is_grad_enabled() or not self._running.frames or self._checkpoints.segment:
            return False
        frame: FrameType | None = sys._getframe()
        while frame is not None and frame.f_code is not _CODE_OF_CALL:
            if frame.f_code is _CODE_OF_APPLY:
                return True
            frame = frame.f_back
        return False

    def _left_in_function(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        assert self._operands is not None
        result, count = function(*args, **kwargs), 0
        with self._listener.guard("products"), Unseen():
            if function is F.scaled_dot_product_attention:
                count = multiplications_of_attention(*args, **kwargs)
            elif (product := product_of(function, args, kwargs)) is not None:
                count = product.multiplications(result)
        self._operands.out_of_reach("within functions of autograd of the script's own", count)
        return result

    # Products of two activations

    def _attend(
        self,
        layers: Sequence[_Layer | None],
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Attention in one function, or by its two products where one of them is taken."""
        assert self._operands is not None
        if any(layer is not None and self._takes(layer) for layer in layers):
            multiply_qk, multiply_av = map(self._multiplying, layers)
            return attend_by_products(multiply_qk, multiply_av, *args, **kwargs)
        count = multiplications_of_attention(*args, **kwargs)
        if None in layers:
            self._operands.out_of_reach(_OF_ACTIVATIONS, count)
        else:
            self._operands.left_alone(count)
        return function(*args, **kwargs)

    def _multiplying(self, layer: _Layer | None) -> Callable[..., Tensor]:
        """What multiplies two tensors by a function, as one of attention's products."""

        def multiply(function: Callable[..., Tensor], a: Tensor, b: Tensor) -> Any:
            second = b.transpose(-2, -1) if function is scores_of else b
            product = product_of(torch.matmul, (a, second), {})
            assert product is not None
            return self._multiply(layer, product._replace(right=b), function, (a, b), {})

        return multiply

    def _multiply(
        self,
        layer: _Layer | None,
        product: Product,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Multiply two activations."""
        assert self._operands is not None
        if layer is not None and self._takes(layer):
            count = product.multiplications
            run = _multiplied_by(function, args, kwargs, product.left, product.right, count)
            return self._through(layer, product.left, run, described(product), None)
        result = function(*args, **kwargs)
        if layer is None:
            self._operands.out_of_reach(_OF_ACTIVATIONS, product.multiplications(result))
        else:
            self._operands.left_alone(product.multiplications(result))
        return result

    def _takes(self, layer: _Layer) -> bool:
        """Whether quantizers act on a product of two activations."""
        assert self._operands is not None
        name = self._known_name(layer.module, layer.part, self._frames_of(layer))
        return name is not None and self._operands.takes(name)

    def _product_here(self, part: str) -> _Layer | None:
        """A product of two activations that runs now; None outside all modules."""

        def found() -> tuple[weakref.ref[nn.Module], str] | None:
            frames = self._running.frames
            return (weakref.ref(frames[-1].module), next_part(frames[-1], part)) if frames else None

        segment = self._checkpoints.segment
        here = found() if segment is None else segment.product(found)
        module = None if here is None else here[0]()
        if here is None or module is None:
            return None
        return _Layer(module, here[1], -1, is_product=True)

    def _may_read_functions(self) -> bool:
        """Whether gradients are enabled, outside all layers."""
        always = self._with_evaluation or self._operands is not None
        if not (torch.is_grad_enabled() or (always and self._running.frames)):
            return False
        frames = self._running.frames
        return not any(self._types.hides_functions(frame.module) for frame in reversed(frames))

    def _with_parameter(
        self, product: Product
    ) -> tuple[_Layer, Tensor, _Geometry, Tensor, Tensor | None] | None:
        """A product as a layer, its input and geometry, its weight, and the parameter behind it."""
        is_trained = self._optimizers.hold
        for x, weight, axis in product.roles():
            parameter = parameter_of(weight, is_trained)
            if parameter is not None:
                layer = self._of_parameter(parameter, axis, [parameter_of(x, is_trained)])
                geometry = _with_weight(product.geometry, weight.shape)
                return None if layer is None else (layer, x, geometry, weight, parameter)
        if product.has_weight():
            behind = parameters_behind(product.right, is_trained)
            if behind is not None:
                layer = self._of_parameter(behind[0], product.channel_axes[0], behind[1])
                geometry = _with_weight(product.geometry, product.right.shape)
                return (
                    None if layer is None else (layer, product.left, geometry, product.right, None)
                )
        return None

    def _of_parameter(
        self, parameter: Tensor, axis: int, others: Iterable[Tensor | None]
    ) -> _Layer | None:
        """The layer that multiplies with a parameter; `others` are used in the same product."""
        owner = self._owners.of(parameter, self._near())
        if owner is None:
            return None
        for each in others:
            if each is not None:
                self._unrecorded.used(each)
        return _Layer(owner.module, owner.name, axis, parameter)

    def _near(self) -> Iterator[nn.Module]:
        """Modules that probably own a parameter that is used now: the running one, the model."""
        for frame in self._running.frames[-1:]:
            yield frame.module
            yield self._names.top(self._running.frames[0].module)

    def _through(
        self,
        layer: _Layer,
        x: Tensor | None,
        run: Callable[[CallOperands | None], Any],
        geometry: _Geometry,
        weight: Tensor | None,
    ) -> Any:
        """Run a layer, whose input is `x`, and read the tensors of this call."""
        with Unseen():
            call = self._begin(layer)
            operands = None if self._operands is None else self._operands_of(layer, x, call)
            gradient = None
            if call is not None and x is not None and not is_transformed(x):
                gradient = self._read_input(call, x)
        result = run(operands)
        if call is not None:
            with self._listener.guard(call.label), Unseen():
                self._ended(call, layer, x, result, geometry, weight, gradient)
        return result

    def _ended(
        self,
        call: LayerCall,
        layer: _Layer,
        x: Tensor | None,
        result: Any,
        geometry: _Geometry,
        weight: Tensor | None,
        gradient: InputGradient | None,
    ) -> None:
        """Read what a layer has computed, and say where it cannot be read."""
        outputs = list(_tensors_in(result))
        if x is None:
            self._unrecorded.unreadable(call.label, "no tensor among its arguments")
        elif not outputs:
            self._unrecorded.unreadable(call.label, "its output is not a tensor")
        elif is_transformed(x) or is_transformed(outputs[0]):
            self._unrecorded.unreadable(call.label, "it ran within a transform of torch.func")
        else:
            call.unreadable = why_unreadable(outputs[0])
            self._note_weight(call, layer, weight)
            shape = dense_of(x).shape
            call.geometry = lambda name: geometry(name, shape)
            if call.around is not None:  # its model may be gone when it is reported
                call.geometry = _worked_out(call.geometry)
            self._read_outputs(call, outputs, gradient)
            self._reporter.finished(call)

    def _note_weight(self, call: LayerCall, layer: _Layer, weight: Tensor | None) -> None:
        if weight is not None and weight.is_leaf:
            call.weight = weakref.ref(weight)
        elif weight is not None:
            call.has_computed_weight = True
            self._meet_parameters_behind(layer.module, weight)

    def _operands_of(
        self, layer: _Layer, x: Tensor | None, call: LayerCall | None
    ) -> CallOperands | None:
        """What acts on a call's operands; None where they are out of reach, which is counted."""
        assert self._operands is not None
        module, part = layer.module, layer.part
        frames = self._frames_of(layer)
        name = self._known_name(module, part, frames)
        if name is None and self._names.are_of_one_model:
            return None
        why = _why_out_of_reach(module, x)
        if name is None or why is not None:
            why = why or "of a model that no optimizer updates"
            self._operands.out_of_reach(why, 0 if x is None else _least_multiplications(module, x))
            return None
        here = self._steps.step + self._steps.ended if call is None else call.forward.step
        recomputes = backward_pass() != -1
        segment = self._checkpoints.segment
        root = functools.partial(self._names.top, frames[0].module)
        place = CallPlace(name, call, here, recomputes, segment)
        output_axis = None if layer.is_product else output_axis_of(module)
        axis = layer.channel_axis
        running = RunningLayer(place, module, axis, output_axis, root, layer.kinds)
        return self._operands.begin(running)

    def _meet_parameters_behind(self, module: nn.Module, weight: Tensor) -> None:
        """A module that was given other parameters' values trains those (MAML's inner steps).

        They are looked for once, at its first call: finding them takes a walk through the graph.
        """
        if module in self._with_computed_weight:
            return
        self._with_computed_weight.add(module)
        behind = parameters_behind(weight, self._optimizers.hold)
        for parameter in behind[1] if behind is not None else ():
            self._unrecorded.used_by_layer(parameter)

    def _read_input(self, call: LayerCall, x: Tensor) -> InputGradient | None:
        """Read a layer's input before the layer runs, and prepare to find its gradient."""
        kinds = self._listener.kinds
        with self._listener.guard(call.label):
            if "input" in kinds:
                self._read(call, "input", x)
            if "grad_input" in kinds and x.requires_grad and torch.is_grad_enabled():
                return InputGradient(x)
        return None

    def _read_outputs(
        self, call: LayerCall, outputs: list[Tensor], gradient: InputGradient | None
    ) -> None:
        """Read the output, the layer's first one, and wait for gradients."""
        kinds, y, reporter = self._listener.kinds, outputs[0], self._reporter
        if "output" in kinds:
            self._read(call, "output", y)
        comes = gradient is not None and gradient.call(
            reporter.gradient(call, "grad_input"), outputs
        )
        if y.requires_grad and ("grad_output" in kinds or not comes):
            y.register_hook(reporter.gradient(call, "grad_output"))  # type: ignore[no-untyped-call]

    def _read(self, call: LayerCall, kind: str, tensor: Tensor) -> None:
        reading = self._listener.read(tensor, call.forward.step, call.channel_axis)
        if reading is not None:
            call.readings.append((kind, reading))

    # Which calls

    def _begin(self, layer: _Layer) -> LayerCall | None:
        """The call of a layer that is to be read; None where it is not to be read."""
        module, part, axis, parameter, is_product, _ = layer
        with self._listener.guard("names"):
            frames = self._frames_of(layer)
            name = self._known_name(module, part, frames)
            if name is None and self._names.are_of_one_model:
                return None
            if name is not None and self._names.known(module) is None:
                return None  # of a copy, which does not train
            if name is not None and not self._listener.asks_for(name):
                self._unrecorded.unwanted(name)
                return None
            forward = self._forward_pass(module, part)
            if forward is None:
                return None
            if is_product:
                pass
            elif parameter is None:
                self._unrecorded.ran(module)
            else:
                self._unrecorded.used(parameter)
            reference = weakref.ref(module)
            if name is not None:
                self._unrecorded.began(module, part, name)
                call = LayerCall(forward, reference, part, None, name, name, channel_axis=axis)
                call.is_product = is_product
                return call
            label = self._unrecorded.awaited(module, part, frames)
            top = self._names.top
            in_passing = top(module) is not top(frames[0].module)
            around = Surroundings(frames, made_in_passing=in_passing)
            return LayerCall(forward, reference, part, around, None, label, channel_axis=axis)
        return None

    def _frames_of(self, layer: _Layer) -> tuple[Frame, ...]:
        """The calls that run, outermost first; the last is of the layer's module, called or not."""
        frames = tuple(self._running.frames)
        is_called = bool(frames) and frames[-1].module is layer.module
        return frames if is_called else (*frames, Frame(layer.module))

    def _known_name(self, module: nn.Module, part: str, frames: Sequence[Frame]) -> str | None:
        """A layer's name, if it can have one before its pass is known to train.

        Names are given to models in the order in which they first train. A model that an optimizer
        updates is taken to train. A copy of a model, such as an average of its weights, is
        quantized as that is when it is evaluated: its layers have the other's names.
        """
        name = self._names.known(module)
        acts = self._operands is not None
        if name is None and (acts or torch.is_grad_enabled()):
            model = self._names.top(frames[0].module)
            named = self._names.are_of_one_model or (acts and torch.is_grad_enabled())
            if acts and self._is_evaluated_alone(model):
                name = self._names.of_copy(module, frames)
            if name is None and (named or self._optimizers.update(model)):
                name = self._names.of(module, frames)
        return full_name(name, part)

    def _is_evaluated_alone(self, model: nn.Module) -> bool:
        """Whether a model can only be evaluated here, and never trains as far as can be known."""
        if self._names.are_of_one_model or self._optimizers.update(model):
            return False
        return not (torch.is_grad_enabled() and any(p.requires_grad for p in model.parameters()))

    def _forward_pass(self, module: nn.Module, part: str) -> ForwardPass | None:
        """The forward pass that a call is part of; None where the pass is not to be read."""
        if getattr(module, "_is_replica", False):  # DataParallel makes new ones for each pass
            self._listener.count("skipped_replica_calls")
            self._unrecorded.replica_ran()
            return None
        backward = backward_pass()
        if backward != -1:
            return None if self._was_read(module, part) else self._recomputed(backward)
        if torch.is_grad_enabled():
            forward = self._outermost()
            self._read_at.setdefault(module, {})[part] = forward.step
            return forward
        return self._evaluation(module)

    def _outermost(self) -> ForwardPass:
        if not self._running.frames:
            self._unrecorded.are_outside_modules = True
            return self._outside()
        if self._running.forward is None:
            step = self._steps.forward_begins()
            self._running.forward = self._new_pass(step)
            self.passes_begun += 1
        return self._running.forward

    def _outside(self) -> ForwardPass:
        """The pass of products outside modules; only the graph holds a reference to it."""
        reference = self._running.outside
        forward = None if reference is None else reference()
        here = self._steps.step + self._steps.ended
        if forward is None or forward.backward is not None or forward.step != here:
            forward = self._new_pass(self._steps.forward_begins())
            self._running.outside = weakref.ref(forward)
            self.passes_begun += 1
        return forward

    def _recomputed(self, backward: int) -> ForwardPass | None:
        """The pass of everything that runs within one backward pass."""
        if not torch.is_grad_enabled():
            return None
        forward = self._running.recomputed
        if forward is None or forward.recomputed_in != backward:
            step = self._steps.forward_begins(backward)
            forward = self._new_pass(step, recomputed_in=backward)
            self._running.recomputed = forward
            for frame in self._running.frames[:1]:
                self.passes_without_gradients -= frame.module in self._evaluated  # it was none
        return forward

    def _evaluation(self, module: nn.Module) -> ForwardPass | None:
        """A pass without gradients: it is counted, but only read with `with_evaluation`."""
        if not self._running.without_gradients and self._running.forward is None:
            self._running.without_gradients = True
            self.passes_without_gradients += 1
            self._evaluated.add(self._running.frames[0].module)
        if not self._with_evaluation or module.training:
            return None
        if self._running.forward is None:
            self._running.forward = self._new_pass(self._steps.step)
        return self._running.forward

    def _new_pass(self, step: int, recomputed_in: int | None = None) -> ForwardPass:
        return ForwardPass(next(self._numbers), step, recomputed_in, trains=self._with_evaluation)

    def _was_read(self, module: nn.Module, part: str) -> bool:
        """Whether a layer was read when it ran first, before its activations are computed again."""
        return self._read_at.get(module, {}).get(part, -2) >= self._steps.step - 1


#: What runs while a module is called, and while a function of autograd is applied.
_CODE_OF_CALL = nn.Module._call_impl.__code__
_CODE_OF_APPLY = vars(torch.autograd.Function)["apply"].__func__.__code__


def _why_out_of_reach(module: nn.Module, x: Tensor | None) -> str | None:
    if getattr(module, "_is_replica", False):
        return "run by DataParallel in copies made for each pass"
    if x is None:
        return "no tensor among its arguments"
    if transform := running_transform():
        return f"ran within {transform}"
    if x.is_nested:
        return "of nested tensors"
    if not has_values(x):
        return "of tensors without values of their own, as of some subclasses"
    return why_unreadable(x)


def _least_multiplications(module: nn.Module, x: Tensor) -> int:
    """How often a layer multiplies at least: each element of its input with a row of its weight."""
    weight = module._parameters.get("weight")
    if weight is None or weight.dim() < 2 or not weight.numel():
        return 0
    shape = list(weight.shape)
    return int(x.numel() * (shape[0] if len(shape) == 2 else math.prod(shape) // shape[1]))


def _multiplied_by(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    x: Tensor,
    weight: Tensor,
    multiplications: Callable[[Any], int],
) -> Callable[[CallOperands | None], Any]:
    """What runs a function that multiplies `x` with `weight`, with operands replaced if any."""

    def run(operands: CallOperands | None) -> Any:
        if operands is None:
            return function(*args, **kwargs)
        y = multiplied(function, args, kwargs, operands, x, weight)
        operands.ran(multiplications(y))
        return y

    return run


def _with_weight(
    geometry: Callable[[str, torch.Size, torch.Size], dict[str, Any]], weight: torch.Size
) -> _Geometry:
    """A product's geometry without its tensors: they would hold the graph, which holds it."""
    return lambda name, x: geometry(name, x, weight)


def _worked_out(geometry: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """A function that gives the same geometry, or failure, without keeping the module alive."""
    try:
        found = geometry("")
    except Exception as error:
        failure = error

        def fail(name: str) -> dict[str, Any]:
            raise failure

        return fail
    return lambda name: found | {"name": name}


def _input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """A layer's input: the first tensor among its arguments, or a packed sequence's data."""
    for each in (*args, *kwargs.values()):
        if isinstance(each, (Tensor, PackedSequence)):
            return each.data if isinstance(each, PackedSequence) else each
    return None


def _tensors_in(result: Any) -> Iterator[Tensor]:
    """The tensors that a layer returned, also in a tuple, list or dictionary; its output first."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list, Mapping)):
        parts = result.values() if isinstance(result, Mapping) else result
        for part in parts:
            yield from _tensors_in(part)


def _is_scripted(module: nn.Module) -> bool:
    return isinstance(module, torch.jit.ScriptModule)
