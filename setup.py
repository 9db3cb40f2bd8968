"""The compiled form of hqtool.kernels; all else stands in pyproject.toml.

Optional: where no C compiler is, the installation goes on, and the plain form does the work.
"""

import os
import sysconfig

from setuptools import Extension, setup

#: -O3 vectorises, floorf only where no exception of the arithmetic is waited for; nothing is
#: contracted, so that the results are the same bits everywhere.
FLAGS = [] if os.name == "nt" else ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-trapping-math"]

#: Free-threaded builds of Python 3.13 and 3.14 have no stable ABI.
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    ext_modules=[
        Extension(
            "hqtool.kernels._compiled",
            ["hqtool/kernels/_compiled.c"],
            depends=[f"hqtool/kernels/{name}.h" for name in ("lanes", "quantize", "sums")],
            extra_compile_args=FLAGS,
            optional=True,
            py_limited_api=STABLE_ABI,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
