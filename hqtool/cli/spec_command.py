"""`hqtool spec`: write the layer spec of a model, a trace or an ONNX file."""

from __future__ import annotations

import shlex

import click

from hqtool.cli.files import INPUT, OUTPUT, FileCommand
from hqtool.cli.layer_sources import dim_option, layer_spec_of
from hqtool.cli.output import announce, force_option, quiet_option, result_stream
from hqtool.outputs import STDOUT, names_stdout


@click.command("spec", cls=FileCommand)
@click.argument(
    "source",
    type=INPUT,
    metavar="PACKAGE.MODULE:FACTORY|TRACE.h5|MODEL.onnx",
    nargs=-1,
    required=True,
)
@click.option(
    "--input",
    "inputs",
    metavar="SHAPE",
    multiple=True,
    help="Shape of an input of the model, such as 1x3x224x224; of tokens 1x128:int64; of an input "
    "given by name mask=1x128:bool. Once for each input.",
)
@dim_option
@click.option(
    "-o",
    "out",
    type=OUTPUT,
    metavar="SPEC.toml",
    default=STDOUT,
    help="The layer spec to write; default: stdout.",
)
@force_option
@quiet_option
def command(
    source: tuple[str, ...],
    inputs: tuple[str, ...],
    dims: tuple[str, ...],
    out: str,
    force: bool,
    quiet: bool,
) -> None:
    """Write a network's layer spec, which can be edited and billed: hqtool traffic SPEC.toml.

    A model is built by calling FACTORY, such as torchvision.models:resnet18 or, of a file in the
    current folder, mymodel:build. It is built and run on torch's meta device, without weights
    and without computing anything, however large it is.

    What moves tensors and has no bill is named in a message, and at the head of the file. A name
    that ends in .json gets the spec in JSON, without comments.
    """
    from hqtool.spec_file import spelled_for
    from hqtool.traffic.sources.toml_text import spec_text

    spec = layer_spec_of(source, dims, inputs)
    words = [*source, *(w for i in inputs for w in ("--input", i)), *_dim_words(dims)]
    made_by = f"Made by: hqtool spec {shlex.join(words)}"
    text = spec_text(spec.layers, spec.bits, [made_by, *spec.notes])
    with result_stream(out, quiet, force=force) as (stream, _):
        stream.write(spelled_for(out, text))
    for note in spec.notes:
        announce(f"note: {note}", quiet)
    if not names_stdout(out):
        announce(f"next: hqtool traffic {out}", quiet)


def _dim_words(dims: tuple[str, ...]) -> list[str]:
    return [word for dim in dims for word in ("--dim", dim)]
