"""Recipes: the file, its errors, which rule applies where, and the named ones."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqtool import TraceReader
from hqtool.compare.recipe_sites import classes_of, recipe_sites
from hqtool.errors import DataError, HqtoolError, UsageError
from hqtool.estimators.quantizer import parse_quantizer
from hqtool.recipes.layer_facts import LayerFacts, facts_of_network
from hqtool.recipes.named import RECIPES, load_recipe
from hqtool.recipes.recipe import Recipe, Rule
from hqtool.recipes.recipe_file import SCHEMA, dumps, parse_recipe, read_recipe, to_json
from hqtool.vocab import TENSOR_KINDS

NETWORK = facts_of_network(
    ["stem", "layer1.conv1", "layer1.conv2", "head"],
    {
        "stem": ("Conv2d", "Module"),
        "layer1.conv1": ("MyConv", "Conv2d", "Module"),
        "head": ("Linear", "Module"),
    },
)

SAMPLE = Path(__file__).parent.parent / "sample_data" / "digits.h5"

EXAMPLE = """
schema = "hqtool.recipe/1"
description = "an example"
source = "DESIGN"

[[rule]]
layers = ["*"]
weight = "current@int8"
output = "hindsight@int8"
grad_input = "hindsight:momentum=0.5@int8/stochastic"

[[rule]]
layers = ["head"]
output = "none"
ste = "full"

[[rule]]
first = true
weight = "none"
"""


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def of_rules(*rules: dict[str, Any]) -> Recipe:
    """A recipe made of parsed rules."""
    return parse_recipe(json.dumps({"schema": SCHEMA, "rule": rules}), "mine")


def layers_taken(**rule: Any) -> list[str]:
    """The layers of NETWORK that a rule applies to."""
    recipe = of_rules(rule | {"output": "current@int8"})
    return [name for name, facts in NETWORK.items() if recipe.quantizer(facts, "output")]


def complaint(folder: Path, rule: str) -> str:
    path = write(folder, f'schema = "{SCHEMA}"\n[[rule]]\n[[rule]]\n{rule}\n')
    with pytest.raises(DataError) as caught:
        read_recipe(path)
    assert caught.value.cause.startswith(f"{path}: ")
    assert caught.value.remedy
    return str(caught.value).removeprefix(f"{path}: ")


# --- the file -----------------------------------------------------------------------------------


def test_rules_apply_in_order_kind_by_kind(tmp_path):
    recipe = load_recipe(write(tmp_path, EXAMPLE))
    labels = {
        name: {kind: q.label for kind in TENSOR_KINDS if (q := recipe.quantizer(facts, kind))}
        for name, facts in NETWORK.items()
    }
    gradient = {"grad_input": "hindsight:momentum=0.5@int8/stochastic"}
    assert labels == {
        "stem": {"output": "hindsight@int8", **gradient},
        "layer1.conv1": {"output": "hindsight@int8", "weight": "current@int8", **gradient},
        "layer1.conv2": {"output": "hindsight@int8", "weight": "current@int8", **gradient},
        "head": {"weight": "current@int8", **gradient},
    }
    through = [recipe.straight_through(facts) for facts in NETWORK.values()]
    assert through == ["clipped", "clipped", "clipped", "full"]
    assert recipe.tensors == ("output", "grad_input", "weight")
    assert recipe.name == str(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    ("rule", "layers"),
    [
        ({}, ["stem", "layer1.conv1", "layer1.conv2", "head"]),
        ({"layers": ["layer1.*"]}, ["layer1.conv1", "layer1.conv2"]),
        ({"layers": "head"}, ["head"]),
        ({"exclude": ["*conv*", "stem"]}, ["head"]),
        ({"layers": ["layer1.*"], "exclude": ["*2"]}, ["layer1.conv1"]),
        ({"types": ["Conv2d"]}, ["stem", "layer1.conv1"]),
        ({"types": ["MyConv", "Linear"]}, ["layer1.conv1", "head"]),
        ({"first": True}, ["stem"]),
        ({"last": True}, ["head"]),
        ({"first": True, "last": True}, ["stem", "head"]),
        ({"first": False}, ["stem", "layer1.conv1", "layer1.conv2", "head"]),
        ({"first": True, "layers": ["head"]}, []),
    ],
)
def test_which_layers_a_rule_applies_to(rule, layers):
    assert layers_taken(**rule) == layers


def test_a_class_that_nobody_knows_is_told():
    recipe = of_rules({"types": ["Conv2d"], "layers": ["layer1.*"], "output": "none"})
    assert recipe.unjudged(NETWORK.values()) == ["layer1.conv2"]
    assert of_rules({"output": "none"}).unjudged(NETWORK.values()) == []


def test_a_network_of_one_layer_is_first_and_last():
    assert facts_of_network(["a", "a"]) == {"a": LayerFacts("a", None, True, True)}


def test_toml_and_json_have_the_same_keys(tmp_path):
    as_json = write(tmp_path, json.dumps(tomllib.loads(EXAMPLE)), "mine.json")
    found, expected = load_recipe(as_json), load_recipe(write(tmp_path, EXAMPLE))
    assert (found.rules, found.source) == (expected.rules, expected.source)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('weigth = "current@int8"', ["rule number 2, key 'weigth': unknown key", "'weight'"]),
        ("output = 8", ["rule number 2, key 'output': 8 is not a text"]),
        ('output = "curent@int8"', ["rule number 2, key 'output': ", "'curent'", "'current'"]),
        ('output = "current@int8,e4m3"', ["rule number 2, key 'output': ", "2 quantizers"]),
        ('output = "local@int8"', ["key 'output': ", "int8 needs a range"]),
        ('output = "current"', ["key 'output': 'current' is not a quantizer"]),
        ("layers = []", ["rule number 2, key 'layers': [] is not a list of 1 or more texts"]),
        ("layers = [3]", ["key 'layers': [3] is not a list of"]),
        ("first = 1", ["key 'first': 1 is neither", "true or false"]),
        ('ste = "cliped"', ["key 'ste': 'cliped' is unknown", "'clipped'"]),
    ],
)
def test_what_is_wrong_names_file_rule_and_key(tmp_path, rule, words):
    said = complaint(tmp_path, rule)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "key 'schema': missing"),
        ('schema = "hqtool.recipe/2"', "newer than this hqtool"),
        ('schema = "hqtool.layers/1"', "is not a recipe"),
        (f'schema = "{SCHEMA}"\nrules = []', "key 'rules': unknown key\ndid you mean 'rule'"),
        (f'schema = "{SCHEMA}"\nrule = 3', "head each rule with"),
        (f'schema = "{SCHEMA}"\nste = "half"', "key 'ste'"),
        ("schema = ", "not TOML"),
    ],
)
def test_what_is_wrong_at_the_top(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        read_recipe(write(tmp_path, text))
    assert words in str(caught.value)
    assert "mine.toml: " in caught.value.cause


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.toml: No such file"):
        load_recipe(tmp_path / "nowhere.toml")


QUANTIZERS = st.sampled_from(
    [None, *map(parse_quantizer, ("current@int8", "hindsight:momentum=0.5@e4m3/stochastic"))]
)
LETTERS = st.characters(exclude_categories=["Cs"])
NAMES = st.lists(st.text(LETTERS, min_size=1, max_size=9), max_size=2).map(tuple)
RULES = st.builds(
    Rule,
    layers=NAMES.map(lambda globs: globs or ("*",)),
    exclude=NAMES,
    types=NAMES,
    first=st.booleans(),
    last=st.booleans(),
    quantizers=st.dictionaries(st.sampled_from([*TENSOR_KINDS]), QUANTIZERS),
    ste=st.sampled_from([None, "clipped", "full"]),
)
FILE_TEXT = st.text(LETTERS, max_size=12).map(str.strip)
RECIPE = st.builds(
    Recipe,
    name=FILE_TEXT.map(lambda text: text or "mine"),
    rules=st.lists(RULES, max_size=3).map(tuple),
    description=FILE_TEXT,
    source=FILE_TEXT,
    ste=st.sampled_from(["clipped", "full"]),
)


@given(RECIPE)
def test_a_recipe_round_trips_through_its_file(recipe):
    assert parse_recipe(dumps(recipe), recipe.name) == recipe
    assert parse_recipe(json.dumps(to_json(recipe)), recipe.name) == recipe


# --- by name ------------------------------------------------------------------------------------


NAMED = {
    "none", "paper-w8a8g8", "paper-gradients", "paper-activations", "te-delayed", "te-current",
    "torchao-tensorwise", "torchao-rowwise", "mxfp8", "mxfp4", "nvfp4", "nvfp4-hindsight",
    "deepseek-v3", "statquant-psq8", "statquant-bhq8", "dorefa", "wage8", "rangebn8", "luq4",
    "radix4", "torch-ao", "qualcomm",
}  # fmt: skip


def test_no_named_recipe_is_lost():
    assert {entry.name for entry in RECIPES} == NAMED


DELAYED = "delayed:window=1024,algo=max,margin=0,init=one"


@pytest.mark.parametrize(
    ("name", "layer", "tensor", "label"),
    [
        ("paper-w8a8g8", "stem", "grad_input", "hindsight@int8/stochastic"),
        ("paper-w8a8g8", "stem", "input", None),
        (
            "te-delayed",
            "head",
            "grad_output",
            f"{DELAYED}@e5m2",
        ),
        ("nvfp4-hindsight", "head", "input", "hindsight@nvfp4"),
        ("dorefa", "stem", "weight", None),
        ("dorefa", "layer1.conv1", "weight", "current@int8-midrise"),
        ("torch-ao", "stem", "input", "running:momentum=0.99@int8"),
        ("torch-ao", "head", "input", None),
        ("none", "stem", "output", None),
    ],
)
def test_what_named_recipes_give(name, layer, tensor, label):
    found = load_recipe(name).quantizer(NETWORK[layer], tensor)
    assert (found.label if found else None) == label


def test_deepseek_leaves_the_head_and_the_gates_alone():
    network = facts_of_network(["mlp.gate", "mlp.gate_proj", "lm_head"]).values()
    recipe = load_recipe("deepseek-v3")
    assert [bool(recipe.quantizer(each, "weight")) for each in network] == [False, True, False]


@pytest.mark.parametrize("name", sorted(NAMED))
def test_every_named_recipe_loads_and_says_where_it_comes_from(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert "\n" not in recipe.description
    assert len(recipe.source) > 30
    assert bool(recipe.tensors) == (name != "none")
    with TraceReader(SAMPLE) as trace:
        found = recipe_sites([recipe], trace.sites, lambda layer: classes_of(trace, layer))
    given = [each.quantizer for each in found.of_recipe(name).values()]
    assert any(given) == (name != "none")
    assert not found.unjudged
    assert parse_recipe(dumps(recipe), name) == recipe


def test_a_mistyped_name_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"unknown recipe 'nome'\ndid you mean 'none'"):
        load_recipe("nome")


MINE = f'''
TEXT = """
schema = "{SCHEMA}"
description = "four bits"
[[rule]]
output = "current@int8"
"""

def mine(scale: str = "free"):
    return TEXT + f'grad_input = "current@e4m3:scale={{scale}}"'

def broken():
    return "schema ="

def missing():
    from pathlib import Path
    return Path("nowhere.toml")
'''


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package that adds recipes."""
    (tmp_path / "recipes_of_a_test.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    names = ("mine", "broken", "missing")
    points = [EntryPoint(n, f"recipes_of_a_test:{n}", "hqtool.recipes") for n in names]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: points)
    before = dict(vars(RECIPES)["_entries"]), dict(vars(RECIPES)["_outside"])
    yield
    RECIPES._entries, RECIPES._outside = before


@pytest.mark.usefixtures("outside")
def test_an_outside_package_adds_a_recipe_with_parameters():
    recipe = load_recipe("mine:scale=pow2")
    assert recipe.name == "mine:scale=pow2"
    found = recipe.quantizer(NETWORK["head"], "grad_input")
    assert found is not None
    assert found.label == "current@e4m3:scale=pow2"
    for name in ("broken", "missing"):
        with pytest.raises(HqtoolError, match=f"recipe '{name}'"):
            load_recipe(name)
