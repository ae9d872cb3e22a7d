"""A JPEG 2000 file is boxes within boxes, each with its length: none of these lengths makes reading hang.

Some loops of GDAL never end on a length of 0 within a box. A hang is in C, so the readers run in a process of
their own, which the kernel ends when a case takes more than its share of a processor.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

SUPERBOXES = (b"jp2h", b"asoc", b"res ", b"uinf")
LENGTHS = (0, 1, 2, 7, 8, 9, 2**31, 2**32 - 1)
MOST_CPU_S = 10

READ = f"""
import signal, sys
from pathlib import Path
from crosstie.errors import CrosstieError
from crosstie.io.raster import open_source, read_plane

for path in sorted(Path(sys.argv[1]).iterdir()):
    print(path.name, flush=True)
    signal.setitimer(signal.ITIMER_PROF, {MOST_CPU_S})  # its signal ends the process
    try:
        source = open_source(path)
        read_plane(source, source.geobox[:64, :64])
    except CrosstieError as refusal:
        assert str(refusal)
print("all read")
"""


def boxes(body: bytes, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Where each box begins, and its type, those within others included."""
    end = len(body) if end is None else end
    while begin + 8 <= end:
        length = int.from_bytes(body[begin : begin + 4], "big") or end - begin
        kind = body[begin + 4 : begin + 8]
        yield begin, kind
        if kind in SUPERBOXES:
            yield from boxes(body, begin + 8, begin + length)
        begin += length


@pytest.mark.slow
def test_no_length_of_a_box_makes_reading_hang(tmp_path: Path) -> None:
    valid = tmp_path / "valid.jp2"
    place = {"crs": "EPSG:32632", "transform": Affine(10, 0, 600_000, 0, -10, 5_300_000)}
    with rasterio.open(
        valid, "w", driver="JP2OpenJPEG", count=1, height=48, width=64, dtype="uint8", **place
    ) as raster:
        raster.write(np.random.default_rng(0).integers(1, 255, (1, 48, 64), np.uint8))
        raster.update_tags(NAME="with XML")
    body = valid.read_bytes()
    found = list(boxes(body))
    assert {b"jp2h", b"ihdr", b"asoc", b"lbl ", b"xml ", b"jp2c"} <= {kind for _, kind in found}
    cases = tmp_path / "cases"
    cases.mkdir()
    for begin, kind in found:
        for length in LENGTHS:
            damaged = body[:begin] + length.to_bytes(4, "big") + body[begin + 4 :]
            (cases / f"{begin:05d}-{kind.decode().strip()}-{length}_vh.jp2").write_bytes(damaged)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, str(cases)], capture_output=True, text=True, timeout=900
    )
    said = ran.stdout.splitlines()
    hung = ran.returncode == -signal.SIGPROF
    assert not hung, f"{said[-1]} takes more than {MOST_CPU_S} s of a processor"
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert said[-1] == "all read"
    assert len(said) == len(found) * len(LENGTHS) + 1
