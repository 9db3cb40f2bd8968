"""What `block.py` shows, as a package of one file that somebody installs."""

from __future__ import annotations

import json
import textwrap

from test_add_your_own import hqtool, trace

from hqtool.core.formats import block

__all__ = ["trace"]  # a fixture


def test_a_block_format_with_a_scale_of_its_own(tmp_path, trace):
    _, _, example = block.__doc__.partition("three names:\n")
    (tmp_path / "my_package.py").write_text(textwrap.dedent(example))
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hqtool.formats]\nroomy = my_package:roomy\n")
    assert "roomy:element=e3m2,room=2" in hqtool(tmp_path, "list")
    specs = ("local@roomy", "local@roomy:element=e2m1,room=1", "local@roomy:room=64")
    found = json.loads(
        hqtool(
            tmp_path, "compare", trace, "--json", "-", *(f"--quantizer={spec}" for spec in specs)
        )
    )
    rows = found["summary"]
    assert [row["format"] for row in rows] == [spec.partition("@")[2] for spec in specs]
    assert [row["bits"] for row in rows] == [6.25, 4.25, 6.25]
    assert [row["looks"] for row in rows] == [0, 0, 0]
    assert rows[0]["sqnr_db"] > rows[2]["sqnr_db"] > 0
    assert rows[0]["saturation"] == 0
