"""ONNX models: the same products as the live models and their traces have, and every operator."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import hqtool

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from capture_models import captured  # noqa: E402
from test_spec_models import Attending, Gated, Residual, layers_of  # noqa: E402
from torch import nn  # noqa: E402

from hqtool.trace.reader import TraceReader  # noqa: E402
from hqtool.trace.recorded_layers import recorded_spec  # noqa: E402
from hqtool.traffic.bill import DEFAULT_BITS, works_bill  # noqa: E402
from hqtool.traffic.layers import Layer  # noqa: E402
from hqtool.traffic.sources.input_shape import parse_input  # noqa: E402
from hqtool.traffic.sources.onnx.file import onnx_spec  # noqa: E402

Make = Callable[[], nn.Module]
MODELS = [(Residual, "2x3x8x8"), (Attending, "2x5:int64"), (Gated, "2x3x6")]


def inputs_of(given: str) -> Any:
    shape = parse_input(given)
    return torch.ones(shape.shape, dtype=getattr(torch, shape.dtype))


def exported(folder: Path, make: Make, given: str, **how: Any) -> Path:
    path = folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(make().eval(), (inputs_of(given),), path, dynamo=False, **how)
    return path


def products(layers: tuple[Layer, ...], *, weighted: bool = False) -> Counter[tuple[int, ...]]:
    """Bits of both passes of each product, static and dynamic."""
    kept = [each for each in layers if each.op in ("linear", "matmul", "conv2d")]
    bills = [
        works_bill(each.works(), DEFAULT_BITS, each.repeat)
        for each in kept
        if not weighted or each.op != "matmul"
    ]
    return Counter((bill.static_bits, bill.dynamic_bits) for bill in bills)


@pytest.mark.parametrize(("make", "given"), MODELS)
def test_products_are_those_of_the_live_model_and_its_trace(
    make: Make, given: str, tmp_path: Path
) -> None:
    check_products(make, given, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 64), ("mobilenet_v2", 64), ("vit_b_16", 224)]
)
def test_so_are_those_of_networks_of_torchvision(name: str, size: int, tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is optional")
    check_products(getattr(models, name), f"1x3x{size}x{size}", tmp_path)


def check_products(make: Make, given: str, tmp_path: Path) -> None:
    live = layers_of(make, given)
    assert products(onnx_spec(exported(tmp_path, make, given), {}).layers) == products(live)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with captured(tmp_path / "run.h5"):
        for _ in range(2):
            optimizer.zero_grad()
            model(inputs_of(given)).sum().backward()
            optimizer.step()
    with TraceReader(tmp_path / "run.h5") as trace:
        recorded = recorded_spec([trace]).layers
    assert products(recorded) == products(live, weighted=True)
    named = {each.name for each in live if each.op in ("linear", "conv2d")}
    assert {each.name for each in recorded} == named


def test_all_operations_of_a_residual_network(tmp_path: Path) -> None:
    """As live, but for the norm, which the export has joined to the convolution."""
    found = onnx_spec(exported(tmp_path, Residual, "2x3x8x8"), {}).layers
    live = [each for each in layers_of(Residual, "2x3x8x8") if each.op != "norm"]
    assert [(each.op, each.counts(), each.kind) for each in found] == [
        (each.op, each.counts(), each.kind) for each in live
    ]
    assert [each.name for each in found][:6] == [
        *("conv", "relu", "shortcut", "add", "relu_1", "pool"),
    ]
    assert [each.name for each in found if not each.grad_input] == ["conv", "shortcut"]


class Chunked(nn.Module):
    """Sizes of chunks, margins, a factor and the axes of a mean are nodes of the exported graph."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(2):
            q, k, v = self.qkv(x).chunk(3, -1)
            x = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1) @ v
        x = nn.functional.pad(x, (0, 0, 0, 2))
        y: torch.Tensor = self.out(x).unflatten(1, (2, 4)).mean((1, 2))
        return y


def test_sizes_that_the_graph_itself_computes(tmp_path: Path) -> None:
    live, path = layers_of(Chunked, "4x6x8"), exported(tmp_path, Chunked, "4x6x8")
    found = onnx_spec(path, {})
    assert [(e.op, e.counts(), e.repeat) for e in found.layers] == [
        (e.op, e.counts(), e.repeat) for e in live
    ]
    assert [each.op for each in live].count("matmul") == 4
    assert live[-1].counts() == (0, 4 * 8 * 6, 4 * 6)
    assert found.notes == ("not billed, though they move tensors: 2 × transpose, pad",)


def test_open_dimensions_get_their_size(tmp_path: Path) -> None:
    how = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
    path = exported(tmp_path, Residual, "2x3x8x8", **how)
    done = hqtool("traffic", path)
    assert (done.status, "leaves dimensions open: batch" in done.err) == (3, True)
    assert "--dim batch=SIZE" in done.err
    done = hqtool("traffic", path, "--dim", "bacth=1")
    assert (done.status, "did you mean 'batch'?" in done.err) == (2, True)
    spec = hqtool("spec", path, "--dim", "batch=5", "-o", tmp_path / "net.toml")
    assert spec.status == 0, spec.err
    assert "batch = 5" in (tmp_path / "net.toml").read_text()
    billed = json.loads(hqtool("traffic", tmp_path / "net.toml", "--json", "-").out)
    direct = json.loads(hqtool("traffic", path, "--dim", "batch=5", "--json", "-").out)
    assert len(billed["layers"]) == 8
    assert direct["layers"] == billed["layers"]


def graph(folder: Path, *nodes: Any, shape: tuple[int, ...], **weights: tuple[int, ...]) -> Path:
    """A model of these nodes, from x to y."""
    value = onnx.helper.make_tensor_value_info
    initializers = [
        onnx.helper.make_tensor(
            name, onnx.TensorProto.FLOAT, dims, bytes(4 * math.prod(dims)), raw=True
        )
        for name, dims in weights.items()
    ]
    made = onnx.helper.make_graph(
        list(nodes),
        "net",
        [value("x", onnx.TensorProto.FLOAT, shape)],
        [value("y", onnx.TensorProto.FLOAT, None)],
        initializers,
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(made, opset_imports=opset), folder / "net.onnx")
    return folder / "net.onnx"


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> Any:
    return onnx.helper.make_node(op, inputs.split(), [output], **attributes)


@pytest.mark.parametrize(
    ("nodes", "shape", "weights", "told"),
    [
        ([("Conv", "x w", {"pads": [0, 0, 1, 1], "strides": [2, 2]})], (1, 2, 8, 8), (4, 2, 3, 3),
         ("conv2d", (72, 128, 64))),
        ([("Conv", "x w", {"auto_pad": "SAME_UPPER", "strides": [2, 2]})], (1, 2, 8, 8),
         (4, 2, 3, 3), ("conv2d", (72, 128, 64))),
        ([("Conv", "x w", {"pads": [0, 0, 3, 3]})], (1, 2, 8, 8), (4, 2, 3, 3),
         ("conv2d", (72, 2 * 121, 4 * 81))),
        ([("ConvTranspose", "x w", {"strides": [2, 2]})], (1, 2, 4, 4), (2, 3, 2, 2),
         ("conv_transpose2d", (24, 32, 3 * 64))),
        ([("Gemm", "x w", {"transB": 1})], (3, 4), (5, 4), ("linear", (20, 12, 15))),
        ([("MatMul", "w x", {})], (4, 3), (5, 4), ("linear", (20, 12, 15))),
        ([("MatMul", "x x", {})], (2, 3, 3), (1,), ("matmul", (18, 18, 18))),
        ([("Einsum", "x x", {"equation": "bij,bkj->bik"})], (2, 3, 4), (1,),
         ("matmul", (24, 24, 18))),
        ([("Einsum", "x w", {"equation": "bij,kj->bik"})], (2, 3, 4), (5, 4),
         ("linear", (20, 24, 30))),
        ([("GlobalAveragePool", "x", {})], (2, 3, 4, 4), (1,), ("pool", (0, 96, 6))),
        ([("LayerNormalization", "x w", {"axis": -1})], (2, 3, 4), (4,), ("norm", (4, 24, 24))),
        ([("Sub", "x x", {})], (2, 3), (1,), ("add", (0, 6, 6))),
        ([("Mul", "x x", {})], (2, 3), (1,), ("mul", (0, 6, 6))),
        ([("Mul", "x w", {})], (2, 3), (1,), ("activation", (0, 6, 6))),
        ([("Softmax", "x", {})], (2, 3), (1,), ("activation", (0, 6, 6))),
    ],
)  # fmt: skip
def test_an_operator(
    nodes: Any, shape: Any, weights: Any, told: tuple[str, Any], tmp_path: Path
) -> None:
    made = [node(op, inputs, **attributes) for op, inputs, attributes in nodes]
    (layer,) = onnx_spec(graph(tmp_path, *made, shape=shape, w=weights), {}).layers
    counts = [each * layer.repeat for each in layer.counts()]
    assert (layer.op, tuple(counts)) == told


def test_recurrent_layers_are_their_products(tmp_path: Path) -> None:
    made = onnx.helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)
    path = graph(tmp_path, made, shape=(5, 2, 3), w=(1, 16, 3), r=(1, 16, 4))
    layers = onnx_spec(path, {}).layers
    assert [tuple(each.counts()) for each in layers] == [(48, 30, 160), (64, 8, 32)]
    assert [each.repeat for each in layers] == [1, 5]


def test_what_has_no_bill_is_named(tmp_path: Path) -> None:
    path = graph(
        tmp_path,
        node("Relu", "x", "a"),
        node("Transpose", "a", "b", perm=[1, 0]),
        node("Reshape", "b shape", "c"),
        node("CumSum", "c axis", "y"),
        node("Constant", "", "shape", value_ints=[6]),
        shape=(2, 3),
    )
    spec = onnx_spec(path, {})
    assert [each.op for each in spec.layers] == ["activation"]
    assert spec.notes == ("not billed, though they move tensors: transpose, cumsum",)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_text("no model")
    for name, said in (("net.onnx", "not an ONNX model"), ("none.onnx", "no such file")):
        done = hqtool("traffic", tmp_path / name)
        assert (done.status, said in done.err, "Traceback" in done.err) == (3, True, False)


def test_without_the_package_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = graph(tmp_path, node("Relu", "x"), shape=(2, 3))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = hqtool("traffic", path)
    assert (done.status, "pip install 'hqtool[onnx]'" in done.err) == (3, True)
