"""Layer specs: the samples, both formats, and an error that names file, layer and key."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hqtool.errors import DataError
from hqtool.traffic.bill import Bits
from hqtool.traffic.spec import SCHEMA, load_spec

SAMPLES = Path(__file__).parent.parent / "sample_data"
CONV: dict[str, Any] = {
    "name": "conv1",
    "op": "conv2d",
    "in_channels": 4,
    "out_channels": 6,
    "input": [7, 9],
    "kernel": 3,
}
FC: dict[str, Any] = {"name": "fc", "op": "linear", "in_channels": 3, "out_channels": 2}
TOML = f"""
schema = "{SCHEMA}"
[defaults]
batch = 4
bits = {{w = 4, acc = 20}}
[[layer]]
name = "conv1"
op = "conv2d"
in_channels = 4
out_channels = 6
input = [7, 9]
kernel = 3
[[layer]]
name = "fc"
op = "linear"
in_channels = 3
out_channels = 2
batch = 8
"""
PARSED = {
    "schema": SCHEMA,
    "defaults": {"batch": 4, "bits": {"w": 4, "acc": 20}},
    "layer": [CONV, FC | {"batch": 8}],
}


def write(folder: Path, text: str | bytes, name: str = "net.toml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def write_json(folder: Path, *layers: Any, **top: Any) -> Path:
    return write(folder, json.dumps({"schema": SCHEMA, "layer": layers} | top), "net.json")


def complaint(path: Path) -> str:
    """Cause and remedy of the DataError, having checked that it names the file first."""
    with pytest.raises(DataError) as caught:
        load_spec(path)
    error = caught.value
    assert error.exit_status == 3
    assert error.cause.startswith(f"{path}: ")
    assert error.remedy
    assert "\n" not in error.cause + error.remedy
    return str(error)


# --- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layers", "weight", "x", "y"),
    [
        ("resnet18", 21, 11_678_912, 2_183_168, 2_484_712),
        ("mobilenet_v2", 53, 3_469_760, 6_767_200, 6_679_112),
        ("vgg16", 16, 138_344_128, 9_115_136, 13_556_712),
    ],
)
def test_samples_have_the_elements_of_the_networks(
    name: str, layers: int, weight: int, x: int, y: int
) -> None:
    """The totals are those of torchvision's modules, counted with forward hooks."""
    spec = load_spec(SAMPLES / f"{name}.toml")
    totals = [sum(counts) for counts in zip(*(one.counts() for one in spec.layers), strict=True)]
    assert len(spec.layers) == layers
    assert totals == [weight, x, y]
    assert spec.bits == Bits()


def test_samples_use_qualified_names() -> None:
    names = {
        sample: {layer.name for layer in load_spec(SAMPLES / f"{sample}.toml").layers}
        for sample in ("resnet18", "mobilenet_v2", "vgg16")
    }
    assert {"conv1", "layer1.0.conv1", "layer2.0.downsample.0", "fc"} <= names["resnet18"]
    assert {"features.0.0", "features.1.conv.0.0", "classifier.1"} <= names["mobilenet_v2"]
    assert {"features.0", "features.28", "classifier.0", "classifier.6"} <= names["vgg16"]


# --- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("net.toml", TOML),
        ("net.TOML", TOML),
        ("net.json", json.dumps(PARSED)),
        ("net.spec", TOML),
        ("net", json.dumps(PARSED)),
        ("windows.toml", "\ufeff" + TOML.replace("\n", "\r\n")),
    ],
)
def test_toml_and_json_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    path = write(tmp_path, text, name)
    spec = load_spec(str(path))
    assert spec.path == path
    assert spec.bits == Bits(w=4, acc=20)
    assert [(layer.name, layer.batch) for layer in spec.layers] == [("conv1", 4), ("fc", 8)]


def test_defaults_may_be_left_out(tmp_path: Path) -> None:
    spec = load_spec(write_json(tmp_path, CONV, FC))
    assert spec.bits == Bits()
    assert [layer.batch for layer in spec.layers] == [1, 1]


# --- errors of one layer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"kernal": 3}, "kernal", "did you mean 'kernel'?"),
        ({"in_channels": 4.5}, "in_channels", "4.5 is not a whole number"),
        ({"in_channels": float("nan")}, "in_channels", "nan is not a whole number"),
        ({"in_channels": True}, "in_channels", "True is not a whole number"),
        ({"out_channels": 0}, "out_channels", "0 is not a whole number"),
        ({"groups": 3}, "in_channels", "do not divide into groups = 3"),
        ({"kernel": 9, "padding": 0}, "kernel", "more than the padded input"),
        ({"input": [1, 2, 3]}, "input", "3 numbers, not 2"),
        ({"op": "conv4d"}, "op", "did you mean 'conv"),
        ({"padding": "same", "stride": 2}, "padding", "needs stride 1"),
        ({"batch": "1"}, "batch", "'1' is not a whole number"),
        ({"bits": {"w": 4}}, "bits", "unknown key"),
    ],
)
def test_errors_name_file_layer_and_key(
    tmp_path: Path, change: dict[str, Any], key: str, said: str
) -> None:
    message = complaint(write_json(tmp_path, FC, CONV | change))
    assert f"layer 'conv1', key {key!r}: " in message
    assert said in message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    without = {key: value for key, value in CONV.items() if key != "kernel"}
    assert "layer 'conv1', key 'kernel': missing" in complaint(write_json(tmp_path, without))


def test_an_unnamed_layer_is_counted(tmp_path: Path) -> None:
    without = {key: value for key, value in CONV.items() if key != "name"}
    assert "layer number 2, key 'name': missing" in complaint(write_json(tmp_path, FC, without))
    assert "layer number 1: 5 is not a table" in complaint(write_json(tmp_path, 5))


def test_names_are_given_once(tmp_path: Path) -> None:
    message = complaint(write_json(tmp_path, CONV, FC, CONV))
    assert "layer 'conv1', key 'name': layer number 3 has it too" in message


# --- errors of the file -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top", "where", "said"),
    [
        ({"schema": "hqtool.layers/2"}, "key 'schema'", "newer than this hqtool reads"),
        ({"schema": "hqtool.layers/10"}, "key 'schema'", "newer than this hqtool reads"),
        ({"schema": "hqtool.layers/0"}, "key 'schema'", "is not a layer spec"),
        ({"schema": "hqtool.compare/1"}, "key 'schema'", "is not a layer spec"),
        ({"schema": 1}, "key 'schema'", "1 is not a text"),
        ({"layers": []}, "key 'layers'", "did you mean 'layer'?"),
        ({"layer": []}, "key 'layer'", "not a list of at least one layer"),
        ({"layer": CONV}, "key 'layer'", "not a list of at least one layer"),
        ({"defaults": 3}, "[defaults]", "3 is not a table"),
        ({"defaults": {"bacth": 3}}, "[defaults], key 'bacth'", "did you mean 'batch'?"),
        ({"defaults": {"batch": 0}}, "[defaults], key 'batch'", "0 is not a whole number"),
        ({"defaults": {"bits": 8}}, "[defaults] bits", "8 is not a table"),
        ({"defaults": {"bits": {"x": 8}}}, "[defaults] bits, key 'x'", "unknown key"),
        ({"defaults": {"bits": {"w": 65}}}, "[defaults] bits, key 'w'", "from 1 to 64"),
        ({"defaults": {"bits": {"w": 8.0}}}, "[defaults] bits, key 'w'", "8.0 is not a whole"),
    ],
)
def test_errors_outside_layers(tmp_path: Path, top: dict[str, Any], where: str, said: str) -> None:
    message = complaint(write_json(tmp_path, CONV, **top))
    assert where in message
    assert said in message


@pytest.mark.parametrize("key", ["schema", "layer"])
def test_top_keys_must_be_there(tmp_path: Path, key: str) -> None:
    text = json.dumps({name: value for name, value in PARSED.items() if name != key})
    assert f"key '{key}': missing" in complaint(write(tmp_path, text, "net.json"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("net.toml", "schema = \n", "not TOML: Invalid value (at line 1"),
        ("net.toml", 'a = 1\nb = "x', "not TOML: Unterminated string (at "),
        ("net.toml", "a = 1\na = 2\n", "(at line 2"),
        ("net.toml", json.dumps(PARSED), "not TOML: "),
        ("net.json", '{"schema":\n1,}', "not JSON: Expecting property name"),
        ("net.json", '{"schema":\n1,}', "line 2"),
        ("net.json", TOML, "not JSON: Expecting value: line 2"),
        ("net.json", '{"layer": [{"kernel": 3, "kernel": 5}]}', "key 'kernel' is given twice"),
        ("net.json", "[" * 100_000, "not JSON: "),
        ("net.json", "9" * 5000, "not JSON: "),
        ("net.json", "[]", "the file: [] is not a table"),
        ("net.txt", "what?", "not TOML: "),
        ("net.txt", "what?", "; not JSON: "),
        ("net.toml", b"name = '\xff'", "not UTF-8 at byte 8"),
        ("net.toml", "", "key 'schema': missing"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, text: str | bytes, said: str) -> None:
    assert said in complaint(write(tmp_path, text, name))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "absent.toml")
    assert "Is a directory" in complaint(tmp_path)


#: Weights of one block of a transformer 768 wide: attention's two products and those of its MLP.
BLOCK = 768 * 3 * 768 + 768 * 768 + 2 * 768 * 3072


@pytest.mark.parametrize(
    ("name", "weights", "operations"),
    [
        (
            "resnet50",
            25_557_032 - 53_120 - 1000,
            {"conv2d": 53, "linear": 1, "add": 16, "norm": 53},
        ),
        (
            "vit_b_16",
            3 * 256 * 768 + 12 * BLOCK + 768_000,
            {"linear": 49, "matmul": 24, "norm": 25},
        ),
        ("gpt2", (2 * 50257 + 1024) * 768 + 12 * BLOCK, {"linear": 49, "matmul": 24, "norm": 25}),
    ],
)
def test_the_shipped_specs_of_whole_networks(
    name: str, weights: int, operations: dict[str, int]
) -> None:
    """ResNet-50's parameters as published, without norms and biases; the others by hand."""
    layers = load_spec(SAMPLES / f"{name}.toml").layers
    found = Counter(layer.op for layer in layers)
    assert {op: found[op] for op in operations} == operations
    weighted = [each for each in layers if each.op in ("conv2d", "linear", "embedding")]
    assert sum(each.counts().weight for each in weighted) == weights
