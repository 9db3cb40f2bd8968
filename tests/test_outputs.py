"""Outputs: inputs, other files and devices are not overwritten; no unfinished file is left.

The cases are generated from the commands' own parameters: a new option is tested with the others.
Devices and FIFOs are made in a scratch folder; those of the system are never touched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from command import hqtool

from hqtool import TraceReader, TraceWriter, inputs
from hqtool.capture.run import run_script
from hqtool.capture.settings import CaptureSettings
from hqtool.cli.files import FileCommand, InputFile, OutputFile
from hqtool.cli.main import COMMANDS, cli
from hqtool.errors import DataError, UsageError
from hqtool.outputs import check_outputs, written
from hqtool.trace.convert import convert_npz

#: Command → its inputs, as `files` makes them, and what must follow them.
INPUTS = {
    "capture": ("train.py",),
    "train": ("train.py",),
    "study": ("study.toml",),
    "compare": ("run.h5", "other.h5"),
    "recommend": ("run.h5", "other.h5"),
    "traffic": ("spec.toml",),
    "spec": ("spec.toml",),
    "report": ("run.h5", "other.h5"),
    "info": ("run.h5",),
    "convert": ("run.npz", "more.npz"),
    "repair": ("run.h5",),
    "list": (),
}

SPEC = """
schema = "hqtool.layers/1"
[[layer]]
name = "head"
op = "linear"
in_channels = 4
out_channels = 2
"""

STUDY = """
schema = "hqtool.study/1"
command = ["prints.py"]
metric = 'accuracy: ([0-9.]+)'
seeds = [0]
recipes = ["none"]
"""


def command_named(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


def outputs_of(name: str) -> list[str]:
    return [p.opts[0] for p in command_named(name).params if isinstance(p.type, OutputFile)]


def is_required(name: str, option: str) -> bool:
    return any(p.required for p in command_named(name).params if option in p.opts)


def takes_streams(name: str, option: str) -> bool:
    (param,) = [p for p in command_named(name).params if option in p.opts]
    return isinstance(param.type, OutputFile) and not param.type.regular


CASES = [(name, option) for name in COMMANDS for option in outputs_of(name)]
STREAMED = [case for case in CASES if takes_streams(*case)]
WHOLE = [case for case in CASES if not takes_streams(*case)]
WITH_INPUTS = [case for case in CASES if INPUTS[case[0]]]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an input of each kind."""
    monkeypatch.chdir(tmp_path)
    for name in ("run.h5", "other.h5"):
        with TraceWriter(name) as writer:
            writer.write("head", "output", 0, np.arange(8, dtype="f4"))
            writer.commit(0)
    np.savez("run.npz", **{"head/output/0": np.ones(3)})
    np.savez("more.npz", **{"head/output/1": np.ones(3)})
    Path("spec.toml").write_text(SPEC)
    Path("study.toml").write_text(STUDY)
    Path("prints.py").write_text("print('accuracy: 0.5')\n")
    Path("train.py").write_text("raise SystemExit('was run')\n")
    return tmp_path


def words(name: str, option: str, out: str, *more: str) -> list[str]:
    """A command line with one output."""
    extra = {
        "capture": ["--config"],
        "train": ["--recipe", "none"],
        "recommend": ["--target", "cosine>=0"],
    }
    return [name, *extra.get(name, []), option, out, *more, *INPUTS[name]]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


# --- every option is known ----------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_names_a_file_says_so_by_its_type(name: str) -> None:
    """So that the one check sees it."""
    command = command_named(name)
    assert isinstance(command, FileCommand)
    for param in command.params:
        metavar = str(param.metavar or "")
        names_file = re.search(r"FILE|TRACE|\.(h5|toml|json|html|onnx)\b", metavar)
        if (names_file or param.name in ("out", "spec", "trace")) and param.name != "program":
            assert isinstance(param.type, OutputFile | InputFile), f"{name} {param.opts}"


# --- inputs -------------------------------------------------------------------------------------


def link_to(source: str, how: str) -> str:
    """Another name for a file."""
    if how == "symlink":
        os.symlink(source, "link")
    elif how == "hard link":
        os.link(source, "link")
    elif how == "chain":
        os.symlink(source, "first")
        os.symlink(os.path.abspath("first"), "link")
    return {"itself": source, "dotted": f"./{source}", "absolute": os.path.abspath(source)}.get(
        how, "link"
    )


@pytest.mark.parametrize("how", ["itself", "dotted", "absolute", "symlink", "hard link", "chain"])
@pytest.mark.parametrize(("name", "option"), WITH_INPUTS)
def test_an_output_that_is_an_input_is_refused(
    name: str, option: str, how: str, files: Path
) -> None:
    for source in INPUTS[name]:
        out = link_to(source, how)
        before = bytes_of(files)
        done = hqtool(*words(name, option, out, "-f"))
        assert (done.status, done.out) == (2, "")
        assert f"{option} {out} is " in done.err
        assert len(done.err.splitlines()) <= 2
        assert bytes_of(files) == before
        for link in ("first", "link"):
            Path(link).unlink(missing_ok=True)


def test_what_a_script_reads_is_an_input_of_capture(files: Path) -> None:
    """A module's file, its arguments, the file of defaults; a trace named after its script."""
    Path("data.bin").write_bytes(b"data")
    Path("hqtool.toml").write_text("[capture]\nevery = 3\n")
    Path("pack").mkdir()
    Path("pack/__init__.py").write_text("")
    Path("pack/run.py").write_text("")
    shutil.copy("train.py", "train.h5")
    before = bytes_of(files) | bytes_of(files / "pack")
    for args in (
        ["-o", "data.bin", "train.py", "data.bin"],
        ["-o", "data.bin", "train.py", "--data=data.bin"],
        ["-o", "hqtool.toml", "train.py"],
        ["-o", "pack/run.py", "-m", "pack.run"],
        ["train.h5"],
        ["--verify", "-o", "train.py", "train.py"],
    ):
        done = hqtool("capture", "-f", *args)
        assert (done.status, len(done.err.splitlines())) == (2, 2), done.err
        assert " is " in done.err
    assert bytes_of(files) | bytes_of(files / "pack") == before


def test_convert_knows_its_inputs_without_a_command_line(files: Path) -> None:
    with pytest.raises(UsageError, match="one of the files to convert"):
        convert_npz(["run.npz", "more.npz"], "more.npz", force=True)


def test_capture_knows_its_script_without_a_command_line(files: Path) -> None:
    pytest.importorskip("torch")
    os.link("train.py", "link.h5")
    with pytest.raises(UsageError, match="is the program to run"):
        run_script("train.py", [], out="link.h5", settings=CaptureSettings(force=True))
    assert "was run" in Path("train.py").read_text()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_two_outputs_that_are_one_are_refused(files: Path, link: Any) -> None:
    Path("a.json").write_text("old")
    link("a.json", "b.csv")
    for one, other in (("a.json", "b.csv"), ("new", "./new"), ("-", "/dev/stdout")):
        done = hqtool("compare", "run.h5", "-f", "--json", one, "--csv", other)
        assert done.status == 2
        assert "both want" in done.err
    assert Path("a.json").read_text() == "old"


# --- what is there already ----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "option"), CASES)
def test_folders_and_empty_names_are_refused(name: str, option: str, files: Path) -> None:
    Path("folder").mkdir()
    for out in ("folder", "", "new/", *([] if takes_streams(name, option) else ["-"])):
        done = hqtool(*words(name, option, out, "-f"))
        assert (done.status, done.out) == (2, ""), out
        assert 1 <= len(done.err.splitlines()) <= 2
    assert not list(Path("folder").iterdir())
    assert not [n for n in os.listdir() if "part" in n or n in ("-", "new")]


@pytest.mark.parametrize(("name", "option"), [c for c in CASES if c[0] not in ("capture", "train")])
def test_a_symlink_stays_and_its_target_is_replaced(name: str, option: str, files: Path) -> None:
    """With the target's permissions; without -f nothing happens."""
    Path("far").mkdir()
    Path("far/old").write_text("old")
    os.chmod("far/old", 0o640)
    os.symlink("far/old", "link")
    assert hqtool(*words(name, option, "link")).status == 2
    assert Path("far/old").read_text() == "old"
    done = hqtool(*words(name, option, "link", "-f"))
    assert done.status == 0, done.err
    assert os.readlink("link") == "far/old"
    assert Path("far/old").read_bytes() != b"old"
    assert stat.S_IMODE(os.stat("far/old").st_mode) == 0o640
    assert os.listdir("far") == ["old"]


@pytest.fixture
def nodes(files: Path) -> Path:
    """Devices like null and full, under names of their own."""
    if os.geteuid():
        pytest.skip("only root makes devices")
    for name, minor in (("null", 3), ("full", 7)):
        try:
            os.mknod(name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
            os.close(os.open(name, os.O_WRONLY))
        except PermissionError:
            pytest.skip("no devices here")
    return files


@pytest.mark.parametrize("force", [[], ["-f"]])
@pytest.mark.parametrize(("name", "option"), STREAMED)
def test_a_device_is_written_to(name: str, option: str, force: list[str], nodes: Path) -> None:
    extra = ["--per-step"] if name == "compare" else []
    done = hqtool(*words(name, option, "null", *extra, *force))
    assert done.status == 0, done.err
    done = hqtool(*words(name, option, "full", *extra, *force))
    assert done.status == 3
    assert "cannot write full: No space left on device" in done.err
    assert all(stat.S_ISCHR(os.stat(node).st_mode) for node in ("null", "full"))


@pytest.mark.parametrize(("name", "option"), STREAMED)
def test_a_fifo_is_written_to(name: str, option: str, files: Path) -> None:
    os.mkfifo("pipe")
    with open("read", "wb") as out, subprocess.Popen(["cat", "pipe"], stdout=out):
        assert hqtool(*words(name, option, "pipe")).status == 0
    found = Path("read").read_bytes()
    assert found.endswith(b"\n")
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    assert hqtool(*words(name, option, "file")).status == 0
    if name not in ("study", "report"):  # they tell what was done before, and the command
        assert Path("file").read_bytes() == found


@pytest.mark.parametrize(("name", "option"), WHOLE)
def test_what_must_be_a_file_is_no_fifo(name: str, option: str, files: Path) -> None:
    os.mkfifo("pipe")
    done = hqtool(*words(name, option, "pipe", "-f"))
    assert (done.status, "not a regular file" in done.err) == (2, True)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_a_trace_is_no_fifo_for_its_writer_either(files: Path) -> None:
    os.mkfifo("pipe")
    for force in (False, True):
        with pytest.raises(UsageError, match="regular file"):
            TraceWriter("pipe", force=force)
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_stdout_by_another_name_is_stdout(files: Path) -> None:
    """Redirected to a file, too: it is not replaced."""
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with Path("out").open("w") as out:
            run("list", "--json", name, stdout=out, check=True)
        assert json.loads(Path("out").read_text())["schema"] == "hqtool.list/1"


def write_new() -> None:
    with written("new", force=False) as (out, _):
        out.write("mine")
        Path("new").write_text("theirs")


def test_a_file_that_appears_meanwhile_is_kept(files: Path) -> None:
    with pytest.raises(UsageError, match="by now"):
        write_new()
    assert Path("new").read_text() == "theirs"
    assert not [name for name in os.listdir() if name.endswith(".part")]


def test_a_folder_that_is_missing_or_read_only(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="does not exist"):
        check_outputs({"--json": "none/x"}, {}, force=False)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(DataError, match="read-only"):
        check_outputs({"--json": "x"}, {}, force=False)


# --- cut short ----------------------------------------------------------------------------------


def write_half(lines: bool, ending: type[BaseException]) -> None:
    with written("x", lines=lines) as (out, _):
        out.write("one\ntw")
        raise ending


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, ValueError])
@pytest.mark.parametrize("lines", [True, False])
def test_what_is_cut_short(files: Path, ending: type[BaseException], lines: bool) -> None:
    """Whole lines are kept after Ctrl-C and SIGTERM; of anything else the old file."""
    Path("x").write_text("old\n")
    with pytest.raises(ending):
        write_half(lines, ending)
    kept = lines and ending is not ValueError
    assert Path("x").read_text() == ("one\n" if kept else "old\n")
    assert not [name for name in os.listdir() if name.endswith(".part")]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit])
def test_an_old_file_stays_where_no_line_was_written(files: Path, ending: Any) -> None:
    Path("x").write_text("old\n")
    with pytest.raises(ending), written("x", lines=True):
        raise ending
    assert Path("x").read_text() == "old\n"


#: Runs a command that gets a signal in the middle of writing.
INTERRUPTED = """
import os, signal, sys
from hqtool.trace.writer import TraceWriter
from hqtool.report import export
number = int(sys.argv.pop(1))
commit = TraceWriter.commit
def interrupted(self, step):
    os.kill(os.getpid(), number)
    commit(self, step)
TraceWriter.commit = interrupted
import hqtool.cli.output as output
def half(report, out):
    out.write("half")
    out.flush()
    os.kill(os.getpid(), number)
output.render_json = output.render_csv = half
from hqtool.cli.main import main
main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
@pytest.mark.parametrize(
    "words",
    [
        ["repair", "run.h5", "-o", "new"],
        ["convert", "run.npz", "-o", "new"],
        ["compare", "run.h5", "--json", "new"],
        ["traffic", "spec.toml", "--csv", "new"],
    ],
    ids=lambda words: words[0],
)
def test_a_signal_leaves_nothing(
    files: Path, number: signal.Signals, status: int, words: list[str]
) -> None:
    before = sorted(os.listdir())
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(int(number)), *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir()) == before


# --- stdout -------------------------------------------------------------------------------------


def run(*args: str, **how: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hqtool", *args]
    pipes = {"stderr": subprocess.PIPE} | ({} if "stdout" in how else {"stdout": subprocess.PIPE})
    return subprocess.run(command, text=True, **pipes, **{"check": False} | how)


READERS = ["", "--json -", "--csv -", "--jsonl -", "--per-step --csv -"]


@pytest.mark.parametrize("args", [*(f"compare run.h5 {r}" for r in READERS), "--help", "list"])
def test_a_reader_who_is_gone_is_no_error(files: Path, args: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        done = run(*args.split(), stdout=out)
    assert (done.returncode, done.stderr) == (0, "")


def test_files_are_complete_although_a_reader_is_gone(files: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    outputs = ["--jsonl", "-", "--json", "x.json", "--csv", "x.csv", "--per-step"]
    with os.fdopen(writing, "w") as out:
        assert run("compare", "run.h5", *outputs, "-q", stdout=out).returncode == 0
    found = json.loads(Path("x.json").read_text())
    assert len(found["steps"]) == 4
    assert len(Path("x.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    "args", ["compare run.h5", "compare run.h5 --json -", "compare run.h5 --jsonl -", "--help"]
)
def test_a_full_stdout_is_told(nodes: Path, args: str) -> None:
    with Path("full").open("w") as out:
        done = run(*args.split(), stdout=out)
    assert done.returncode == 3
    assert done.stderr.startswith("hqtool: cannot write stdout: No space left on device\n")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("args", ["info run.h5", "info run.h5 --json -", "--version"])
def test_a_closed_stdout_is_told(files: Path, args: str) -> None:
    command = f"exec {sys.executable} -m hqtool {args} >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("hqtool: cannot write stdout: Bad file descriptor\n")


def test_a_closed_stderr_changes_nothing(files: Path) -> None:
    command = f"exec {sys.executable} -m hqtool info run.h5 --json x.json 2>&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, "wrote" in done.stdout) == (0, False)
    assert json.loads(Path("x.json").read_text())["state"] == "complete"


TRAINING = """
import torch
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(4):
    optimizer.zero_grad()
    model(torch.ones(4, 3)).square().sum().backward()
    optimizer.step()
"""


@pytest.mark.parametrize(
    ("args", "closed", "status"),
    [
        ("-o new.h5 train.py", ">&- 2>&-", 7),
        ("--list-sites train.py", ">&-", 3),
    ],
)
def test_capture_without_streams(files: Path, args: str, closed: str, status: int) -> None:
    """The script's status is its own; what it opens does not get the number of a stream."""
    pytest.importorskip("torch")
    Path("train.py").write_text(TRAINING + "raise SystemExit(7)\n")
    command = f"exec {sys.executable} -m hqtool capture {args} {closed}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert "Traceback" not in done.stderr
    if status == 7:
        with TraceReader("new.h5") as trace:
            assert len(trace.steps) == 4


@pytest.fixture
def strange(files: Path) -> str:
    """A trace whose layer has a name that no terminal should see as it is."""
    with TraceWriter("strange.h5") as writer:
        writer.write("a×\x1b[31m\u202e\udc80é", "output", 0, np.arange(4, dtype="f4"))
        writer.commit(0)
    return "strange.h5"


ACTING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-8"])
@pytest.mark.parametrize(
    "args",
    ["compare --by layer", "compare --json -", "compare --jsonl -", "compare --csv -", "info"],
)
def test_any_encoding_will_do(strange: str, encoding: str, args: str) -> None:
    name, *options = args.split()
    environ = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": encoding}
    done = run(name, strange, *options, env=environ, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert not ACTING.search(done.stdout)
    if "--json" in args:
        text = done.stdout.splitlines()[0] if "--jsonl" in args else done.stdout
        document = json.loads(text)
        row = document if "--jsonl" in args else document["summary"][0]
        assert row["layer"] == "a×\x1b[31m\u202e\udc80é"
    elif encoding == "ascii":
        assert "x\\x1b[31m\\u202e\\udc80" in done.stdout or "\\xd7\\x1b[31m" in done.stdout


def test_help_in_ascii_has_marks(files: Path) -> None:
    environ = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = run("compare", "--help", env=environ)
    assert done.returncode == 0
    assert "1.00x is static" in " ".join(done.stdout.split())


def test_names_in_files_and_messages_are_harmless(strange: str) -> None:
    outputs = ("--csv", "x.csv", "--jsonl", "x.jsonl")
    assert hqtool("compare", strange, *outputs).status == 0
    assert "\\x1b[31m\\u202e\\udc80é" in Path("x.csv").read_text()
    for args in (("info", "no\x1b[31m.h5"), ("compare", "no\udc80.h5"), ("a\x1b[31mb",)):
        done = hqtool(*args)
        assert not ACTING.search(done.err)
        assert done.status in (2, 3)
    Path("a\x1b.h5").symlink_to(strange)
    assert not ACTING.search(hqtool("info", "a\x1b.h5", "--json", "out\x1b.json").err)


def test_parquet_holds_names_without_encoding_too(strange: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert hqtool("compare", strange, "--parquet", "x.parquet").status == 0
    assert parquet.read_table("x.parquet")["layer"][0].as_py() == "a×\x1b[31m\u202e\\udc80é"


# --- FIFOs and disks as inputs ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["compare", "info", "convert", "repair", "capture"])
def test_a_fifo_is_no_input(name: str, files: Path) -> None:
    os.mkfifo("pipe")
    out = ["-o", "new"] if name in ("convert", "repair", "capture") else []
    done = hqtool(name, *out, "pipe")
    assert done.status == 3
    assert len(done.err.splitlines()) <= 2


def test_a_spec_may_come_through_a_fifo(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But is not waited on for ever; nor is a device read."""
    os.mkfifo("pipe")
    with subprocess.Popen(["sh", "-c", "cat spec.toml > pipe"]):
        done = hqtool("traffic", "pipe", "--json", "-")
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out)["layers"][0]["name"] == "head"
    monkeypatch.setattr(inputs, "FIFO_WAIT_SECONDS", 0.0)
    done = hqtool("traffic", "pipe")
    assert (done.status, "nobody wrote" in done.err) == (3, True)
    done = hqtool("traffic", "/dev/zero")
    assert (done.status, "not a regular file" in done.err) == (3, True)


def test_convert_and_repair_speak_of_no_recording(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(".")._replace(free=100 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    assert hqtool("convert", "run.npz", "-o", "a.h5").status == 0  # 100 MiB will do
    assert hqtool("repair", "run.h5", "-o", "b.h5").status == 0
    with TraceReader("b.h5") as trace:
        assert trace.state == "complete"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free._replace(free=1 << 20))
    for args in (("convert", "run.npz"), ("repair", "run.h5")):
        done = hqtool(*args, "-o", "c.h5")
        assert (done.status, "record" in done.err, "MiB are free" in done.err) == (3, False, True)
