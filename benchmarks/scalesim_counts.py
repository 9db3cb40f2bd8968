"""What SCALE-Sim counts for one layer; run by an interpreter that has it, and nothing of hqtool.

Usage: python scalesim_counts.py DATAFLOW KIB HEIGHT WIDTH KERNEL IN_CHANNELS OUT_CHANNELS

Height and width are those of the padded input. Prints elements that DRAM moves, as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import warnings

#: 32×32 multipliers, three SRAMs of equal size, double-buffered, one byte a word.
CONFIG = """
[general]
run_name = layer
[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
[architecture_presets]
ArrayHeight: 32
ArrayWidth: 32
IfmapSramSzkB: {kib}
FilterSramSzkB: {kib}
OfmapSramSzkB: {kib}
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: {dataflow}
ReadRequestBuffer: 64
WriteRequestBuffer: 64
[layout]
IfmapCustomLayout: False
FilterCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2
[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 4
RandomNumberGeneratorSeed: 40
"""


def counts(dataflow: str, kib: int, sizes: list[int]) -> dict[str, int]:
    """Elements of W, X and Y that DRAM moves.

    Args:
        dataflow: 'ws', 'os' or 'is'.
        sizes: as on the command line.
    """
    from scalesim.layout_utils import layouts
    from scalesim.scale_config import scale_config
    from scalesim.single_layer_sim import single_layer_sim
    from scalesim.topology_utils import topologies

    height, width, kernel, in_channels, out_channels = sizes
    row = f"layer,{height},{width},{kernel},{kernel},{in_channels},{out_channels},1,"
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("c.cfg", "t.csv")]
        texts = CONFIG.format(kib=kib, dataflow=dataflow), f"name,h,w,fh,fw,c,n,s,\n{row}\n"
        for path, text in zip(paths, texts, strict=True):
            with open(path, "w") as file:
                file.write(text)
        config, topology, layer = scale_config(), topologies(), single_layer_sim()
        config.read_conf_file(paths[0])
        topology.load_arrays(paths[1])
        layer.set_params(0, config, topology, layouts(), verbose=False)
        layer.run()
        layer.calc_report_data()
    found = layer.filter_dram_reads, layer.ifmap_dram_reads, layer.ofmap_dram_writes
    return dict(zip("WXY", map(int, found), strict=True))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = counts(sys.argv[1], int(sys.argv[2]), list(map(int, sys.argv[3:])))
    print(json.dumps(result))
