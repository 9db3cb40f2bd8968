"""The limits on imports: which package may import which, and what must stay unloaded."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hqtool"

#: Floors, lowest first; an import may only point to the same folder or a lower floor.
FLOORS = [
    {
        "display",
        "errors",
        "file_lock",
        "nearest",
        "parameters",
        "patch",
        "sizes",
        "version",
        "vocab",
    },
    {"inputs", "outputs", "spec_table"},
    {"registry", "spec_file"},
    {"kernels"},
    {"core"},
    {"estimators"},
    {"recipes"},
    {"traffic"},
    {"trace"},
    {"compare", "watch", "launch"},
    {"capture"},
    {"training", "study"},
    {"trial"},
    {"report"},
    {"cli"},
    {"__main__"},
]

#: Floors within a folder, lowest first; an import may only point to a lower floor of it.
INNER_FLOORS = {
    "core": [
        {"entry_ranges", "magnitude", "metrics", "noise", "samples", "search"},
        {"arrangement", "stats"},
        {"formats"},
        {"moments"},
        {"observation"},
        {"questions", "quantize", "recorded"},
    ],
    "core/formats": [
        {"format"},
        {"householder", "scaling", "uniform"},
        {"lanes"},
        {"codebook"},
        {"floating", "midrise"},
        {"block"},
        {"named"},
    ],
    "traffic/pricing": [
        {"data", "energy", "store", "tiling"},
        {"looks", "rereads", "sweep"},
        {"stored"},
        {"scheme"},
    ],
    "training": [
        {"settings", "tensors"},
        {"plan", "sites"},
        {"ranks", "told"},
        {"call_operands"},
        {"trainer"},
        {"outcome"},
        {"session"},
        {"call", "run"},
        {"aside"},
    ],
    "compare": [
        {"lanes", "pareto", "recipe_sites", "results", "scoring", "settings"},
        {"sums"},
        {"unquantized"},
        {"recipe_totals", "replay"},
        {"execute"},
        {"comparison"},
        {"recommending"},
    ],
}

#: What reaches up all the same: a format that computes its own moments, and many records at once.
REACHES_UP = {
    ("core/formats/householder.py", "moments"),
    ("core/moments/batch.py", "observation"),
}

#: Outside package → the only rooms that may import it.
ALLOWED = {
    "torch": {"watch", "launch", "capture", "training", "trial"},
    "h5py": {"trace"},
    "click": {"cli"},
    "rich": {"report", "cli"},
    "onnx": {"traffic"},
}

MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(room: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, also those it imports as names of a package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_only(path):
    room = room_of(path)
    for name in imports_of(path):
        top, _, rest = name.partition(".")
        if top == "hqtool" and rest:
            target = room_of(PACKAGE / rest.partition(".")[0])
            assert target == room or floor_of(target) < floor_of(room), f"{path} imports {name}"
        assert room in ALLOWED.get(top, {room}), f"{path} imports {name}"


@pytest.mark.parametrize("folder", INNER_FLOORS)
def test_imports_within_a_folder_point_down_only(folder):
    place, floors = PACKAGE / folder, INNER_FLOORS[folder]
    at = {room: height for height, rooms in enumerate(floors) for room in rooms}
    rooms = {path.stem for path in place.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert at.keys() == rooms - {"__init__", "__pycache__"}
    at["__init__"] = len(floors)
    start = f"hqtool.{folder.replace('/', '.')}."
    for path in place.rglob("*.py"):
        room = path.relative_to(place).parts[0].removesuffix(".py")
        targets = {
            name.removeprefix(start).partition(".")[0]
            for name in imports_of(path)
            if name.startswith(start)
        }
        above = {other for other in targets & at.keys() - {room} if at[other] >= at[room]}
        name = str(path.relative_to(PACKAGE))
        assert {(name, other) for other in above} <= REACHES_UP, f"{name} imports {above}"


def test_no_imports_run_in_a_circle():
    """Those of type checkers included."""
    places = {path: path.relative_to(PACKAGE.parent).with_suffix("").parts for path in MODULES}
    files = {".".join(parts).removesuffix(".__init__"): path for path, parts in places.items()}
    graph = {name: imports_of(path) & files.keys() - {name} for name, path in files.items()}
    graphlib.TopologicalSorter(graph).prepare()


def loaded_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


COMMAND = "import contextlib, io; from hqtool.cli.main import cli\n" + (
    "with contextlib.redirect_stdout(io.StringIO()):\n    cli.main({args}, standalone_mode=False)"
)
SPEC = str(PACKAGE.parent / "sample_data" / "table5.toml")


@pytest.mark.parametrize(
    ("code", "unloaded"),
    [
        ("import hqtool", {"torch", "h5py", "numpy", "click", "rich"}),
        ("import hqtool.capture", {"torch", "h5py"}),
        ("import hqtool.training", {"torch", "h5py", "numpy"}),
        (COMMAND.format(args=["--help"]), {"torch", "h5py", "numpy", "rich"}),
        (COMMAND.format(args=["compare", "--help"]), {"torch"}),
        (COMMAND.format(args=["recommend", "--help"]), {"torch"}),
        (COMMAND.format(args=["capture", "--help"]), {"torch", "h5py"}),
        (COMMAND.format(args=["train", "--help"]), {"torch", "h5py"}),
        (COMMAND.format(args=["study", "--help"]), {"torch", "scipy"}),
        (COMMAND.format(args=["traffic", SPEC]), {"torch", "h5py", "numpy", "scipy", "onnx"}),
        (COMMAND.format(args=["spec", SPEC]), {"torch", "h5py", "numpy", "scipy", "onnx"}),
    ],
)
def test_what_stays_unloaded(code, unloaded):
    assert not loaded_by(code) & unloaded


#: What is public of a named tuple, though it begins with an underscore.
OF_NAMED_TUPLES = {"_fields", "_make", "_replace", "_asdict"}


def private_names_of_others(path: Path) -> set[str]:
    """Private names that a file imports, or reads off anything but `self`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and not _of_self(node):
            found.add(node.attr)
    private = {name for name in found if name.startswith("_") and not name.startswith("__")}
    return private - OF_NAMED_TUPLES


def _of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


@pytest.mark.parametrize("path", sorted((PACKAGE / "trace").glob("*.py")), ids=lambda p: p.name)
def test_what_is_private_in_the_trace_stays_so(path):
    assert private_names_of_others(path) == set()
