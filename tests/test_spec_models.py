"""Layer specs of models: every operation of small models, by hand, without weights or computing."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from command import hqtool

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from hqtool.errors import DataError, UsageError  # noqa: E402
from hqtool.traffic.bill import DEFAULT_BITS  # noqa: E402
from hqtool.traffic.layers import Layer  # noqa: E402
from hqtool.traffic.sources.input_shape import InputShape, parse_dims, parse_input  # noqa: E402
from hqtool.traffic.sources.toml_text import spec_text  # noqa: E402
from hqtool.traffic.spec import load_spec  # noqa: E402
from hqtool.trial.shapes.building import built  # noqa: E402
from hqtool.trial.shapes.recorder import network_of_model  # noqa: E402

N = 2

#: Name, op, elements of W, X and Y of one repeat, and how many repeats.
Row = tuple[str, str, tuple[int, int, int], int]


def layers_of(make: Callable[[], nn.Module], *inputs: str) -> tuple[Layer, ...]:
    with torch.device("meta"):
        model = make().eval()
    return network_of_model(model, [parse_input(text) for text in inputs], "it").layers("it")


def rows(layers: Sequence[Layer]) -> list[Row]:
    return [(each.name, each.op, tuple(each.counts()), each.repeat) for each in layers]


class Residual(nn.Module):
    """A residual block with a downsampled shortcut, as ResNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.shortcut = nn.Conv2d(3, 4, 1, stride=2)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm(self.conv(x)))
        y = self.relu(y + self.shortcut(x))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(self.pool(y), 1), 1))


def test_a_residual_network_by_hand() -> None:
    """8×8 images: 4×4 after the stride, 2×2 after the pool, rounded up."""
    layers = layers_of(Residual, f"{N}x3x8x8")
    plane, images = N * 4 * 16, N * 3 * 64
    assert rows(layers) == [
        ("conv", "conv2d", (4 * 3 * 9, images, plane), 1),
        ("norm", "norm", (4, plane, plane), 1),
        ("relu", "activation", (0, plane, plane), 1),
        ("shortcut", "conv2d", (4 * 3, images, plane), 1),
        ("add", "add", (0, plane, plane), 1),
        ("relu#2", "activation", (0, plane, plane), 1),
        ("pool", "pool", (0, plane, N * 4 * 4), 1),
        ("adaptive_avg_pool2d", "pool", (0, N * 4 * 4, N * 4), 1),
        ("head", "linear", (20, N * 4, N * 5), 1),
    ]
    assert [each.name for each in layers if not each.grad_input] == ["conv", "shortcut"]
    assert layers[4].sources == ("relu", "shortcut")
    assert layers[3].sources == ()  # it reads the images
    assert {each.kind for each in layers if each.op == "pool"} == {"max", "avg"}


class Attending(nn.Module):
    """Tokens, positions, one pre-norm block of attention in PyTorch's module, a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.positions = nn.Parameter(torch.zeros(1, 5, 8))
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions
        y = self.norm(x)
        return self.head(x + self.attention(y, y, y, need_weights=False)[0])


def test_attention_by_hand() -> None:
    layers = layers_of(Attending, f"{N}x5:int64")
    x = N * 5 * 8
    scores = N * 2 * 25
    assert rows(layers) == [
        ("tokens", "embedding", (88, N * 5, x), 1),
        ("add", "add", (0, x, x), 1),
        ("norm", "norm", (8, x, x), 1),
        ("attention.in_proj", "linear", (3 * 64, x, 3 * x), 1),
        ("attention.qk", "matmul", (N * 4 * 5, N * 5 * 4, N * 25), 2),
        ("attention.softmax", "activation", (0, scores, scores), 1),
        ("attention.av", "matmul", (N * 5 * 4, N * 25, N * 5 * 4), 2),
        ("attention.out_proj", "linear", (64, x, x), 1),
        ("add#2", "add", (0, x, x), 1),
        ("head", "linear", (88, x, N * 5 * 11), 1),
    ]
    softmax, product = layers[5], layers[6]
    assert (softmax.kind, softmax.in_channels) == ("softmax", 5)
    assert product.sources == ("attention.softmax", "attention.in_proj")


class OwnGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(0.8 * (x + 0.04 * torch.pow(x, 3.0))))


class OwnRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Gated(nn.Module):
    """As in Llama: a norm and an activation written out, and a product of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act = OwnRMSNorm(), OwnGELU()
        self.gate, self.up = nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return torch.cat([self.act(self.gate(x)) * self.up(x), x], -1)


def test_a_module_that_computes_one_thing_in_steps_is_one_operation() -> None:
    layers = layers_of(Gated, f"{N}x3x6")
    assert [(each.name, each.op, each.kind) for each in layers] == [
        ("norm", "norm", "rms"),
        ("gate", "linear", ""),
        ("act", "activation", "gelu"),
        ("up", "linear", ""),
        ("mul", "mul", ""),
    ]
    assert tuple(layers[0].counts()) == (6, N * 18, N * 18)
    assert layers[4].sources == ("act", "up")
    assert [each.made.kind for each in layers[4].works()] == ["output", "grad_input", "grad_input"]


def test_what_has_no_bill_is_named() -> None:
    with torch.device("meta"):
        network = network_of_model(Gated(), [InputShape((N, 3, 6))], "it")
    assert network.notes() == ("not billed, though they move tensors: cat",)


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), nn.Conv2d(6, 6, 3, groups=6)
    )


def test_depthwise_and_transposed_convolutions() -> None:
    assert rows(layers_of(transposed, f"{N}x4x5x5")) == [
        ("0", "conv_transpose2d", (4 * 3 * 9, N * 4 * 25, N * 6 * 100), 1),
        ("1", "conv2d", (6 * 9, N * 6 * 100, N * 6 * 64), 1),
    ]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 4, num_layers=2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


def test_recurrent_layers_are_their_products() -> None:
    layers = layers_of(Recurrent, f"{N}x5x3")
    inputs = {"l0": 3, "l1": 8}
    assert {each.name: (tuple(each.counts()), each.repeat) for each in layers} == {
        f"rnn.weight_{part}_{layer}{end}": ((12 * k, N * steps * k, N * steps * 12), 5 // steps)
        for layer in ("l0", "l1")
        for end in ("", "_reverse")
        for part, k, steps in (("ih", inputs[layer], 5), ("hh", 4, 1))
    }
    no_gradient = {each.name for each in layers if not each.grad_input}
    assert no_gradient == {"rnn.weight_ih_l0", "rnn.weight_ih_l0_reverse"}


def test_a_billion_parameters_take_no_memory() -> None:
    layers = layers_of(
        lambda: nn.Sequential(*(nn.Linear(2**14, 2**14) for _ in range(4))), "1x16384"
    )
    assert sum(each.counts().weight for each in layers) == 2**30


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (Residual, "2x3x8x8"),
        (Attending, "3x5:int64"),
        (Gated, "2x3x6"),
        (transposed, "1x4x5x5"),
        (Recurrent, "2x5x3"),
    ],
)
def test_a_spec_in_toml_tells_the_same(
    make: Callable[[], nn.Module], given: str, tmp_path: Path
) -> None:
    layers, path = layers_of(make, given), tmp_path / "net.toml"
    path.write_text(spec_text(layers, DEFAULT_BITS, ["a comment"]), encoding="utf-8")
    spec = load_spec(path)
    assert (spec.layers, spec.bits) == (layers, DEFAULT_BITS)


# --- from the command line ----------------------------------------------------------------------

MODEL = """
import torch
from torch import nn

print("imported")

def build():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU())

def reads_values():
    rates = [rate.item() for rate in torch.linspace(0, 1, 2)]
    return nn.Sequential(nn.Linear(4, 3), nn.Dropout(rates[1]))

class ReadsItsInput(nn.Module):
    def forward(self, x):
        return torch.relu(x) if x.sum().item() > 0 else x

def number():
    return 3

def fails():
    raise ValueError("no such size\\nmore")

def leaves():
    raise SystemExit(5)

class ToNumpy(nn.Module):
    def forward(self, x):
        return torch.from_numpy(x.numpy() + 1)

class Config:
    width = 4

class Configured(nn.Module):
    config_class = Config

    def __init__(self, config):
        super().__init__()
        self.fc = nn.Linear(config.width, 2)

    def forward(self, x, mask=None):
        return self.fc(x) if mask is None else self.fc(x) * mask

size = 3

trained = build()
"""


@pytest.fixture
def own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file that makes models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("my_small_models.py").write_text(MODEL)
    return tmp_path


def test_a_model_in_the_current_folder(own_model: Path) -> None:
    done = hqtool("spec", "my_small_models:build", "--input", "1x4", "-o", "net.toml")
    assert (done.status, done.out) == (0, "")
    assert done.err.endswith("wrote net.toml\nnext: hqtool traffic net.toml\n")
    spec = load_spec("net.toml")
    assert [each.op for each in spec.layers] == ["linear", "activation"]
    printed = hqtool("spec", "my_small_models.py:build", "--input", "1x4")
    assert printed.out.partition("\n\n")[2] == Path("net.toml").read_text().partition("\n\n")[2]
    assert printed.out.startswith("# Made by: hqtool spec my_small_models.py:build --input 1x4\n")
    again = hqtool("spec", "my_small_models:build", "--input", "1x4", "-o", "net.toml")
    assert (again.status, "overwrite with -f" in again.err) == (2, True)


def test_a_spec_whose_name_ends_in_json_is_json(own_model: Path) -> None:
    for name in ("net.toml", "net.json"):
        hqtool("spec", "my_small_models:build", "--input", "2x4", "-o", name)
    spec = load_spec("net.json")
    assert (spec.layers, spec.bits) == (load_spec("net.toml").layers, DEFAULT_BITS)
    assert json.loads(Path("net.json").read_text())["defaults"]["batch"] == 2


def test_a_model_instead_of_a_factory(own_model: Path) -> None:
    named, made = (
        hqtool("spec", f"my_small_models:{word}", "--input", "1x4") for word in ("trained", "build")
    )
    assert (named.status, made.status) == (0, 0)
    assert named.out.partition("\n\n")[2] == made.out.partition("\n\n")[2]


def test_a_constructor_may_read_values(own_model: Path) -> None:
    assert hqtool("spec", "my_small_models:reads_values", "--input", "1x4").status == 0


def test_a_class_with_a_config(own_model: Path) -> None:
    words = ["spec", "my_small_models:Configured", "--input", "1x4"]
    assert 'op = "mul"' not in hqtool(*words).out
    assert 'op = "mul"' in hqtool(*words, "--input", "mask=1x2").out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["my_small_models:buidl", "--input", "1x4"], 3, "did you mean 'build'?"),
        (["my_small_models:number", "--input", "1x4"], 3, "made a int, not a model"),
        (["my_small_models:size", "--input", "1x4"], 3, "size cannot be called"),
        (["my_small_models:fails", "--input", "1x4"], 3, "ValueError: no such size\n"),
        (["my_small_models:leaves", "--input", "1x4"], 3, "building it failed: SystemExit: 5\n"),
        (["my_small_models:ToNumpy", "--input", "1x4"], 3, "it reads values, which tensors"),
        (["my_small_models:build", "--input", "1x5"], 3, "its forward pass failed"),
        (["my_small_models:ReadsItsInput", "--input", "1x4"], 3, "it reads values, which tensors"),
        (["my_small_models:build"], 2, "the shape of its input is not given"),
        (["no_such_module:build", "--input", "1x4"], 3, "there is no module no_such_module"),
        (["my_small_models:", "--input", "1x4"], 2, "write PACKAGE.MODULE:FACTORY"),
        (["my_small_models:build", "--input", "1x4", "--dim", "n=1"], 2, "ONNX model"),
        (["missing.h5", "--input", "1x4"], 2, "missing.h5 is none"),
        (["missing.h5"], 3, "missing.h5"),
        (["my_small_models:build", "--input", "1x4:float"], 2, "float32"),
    ],
)
def test_mistakes_are_told_in_two_lines(
    own_model: Path, words: list[str], status: int, said: str
) -> None:
    done = hqtool("spec", *words)
    assert (done.status, done.out) == (status, "")
    assert said in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("text", ["", "1x", "x1", "1x-2", "1,2", "a b=1", "1x0", "1x2:int6"])
def test_a_malformed_shape_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--input"):
        parse_input(text)


def test_shapes_and_sizes_are_read() -> None:
    assert parse_input("mask=1x2:bool") == InputShape((1, 2), "bool", "mask")
    assert parse_input("3×4") == InputShape((3, 4))
    assert parse_dims(["n=1", "m = 20"]) == {"n": 1, "m": 20}
    for wrong in (["n"], ["n=0"], ["=1"], ["n=1", "n=2"], ["n=x"]):
        with pytest.raises(UsageError, match="--dim"):
            parse_dims(wrong)


def test_no_weights_are_made(own_model: Path) -> None:
    parameters: list[Any] = list(built("my_small_models:reads_values").parameters())
    assert {each.device.type for each in parameters} == {"meta"}


def test_a_network_without_an_operation_is_refused() -> None:
    with pytest.raises(DataError, match="no operation of it has a bill"):
        layers_of(nn.Identity, "1x4")
