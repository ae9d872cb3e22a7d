"""What is freed comes back to the machine, or stays for the next array; each asked for in its own process."""

from __future__ import annotations

import subprocess
import sys

import pytest

HOLES = """
from crosstie.flows import heap

def resident_mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) // 256

{ask}
del [bytearray(16 * 2**20)][:]  # glibc raises its limit to what was freed
blocks = [bytearray(2**20) for _ in range(128)]
full = resident_mib()
del blocks[::2]  # what stays lies between the holes
print(full - resident_mib())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
@pytest.mark.parametrize(
    ("ask", "returned"),
    [("", False), ("heap.return_freed_memory()", True), ("heap.keep_freed_memory()", False)],
)
def test_holes_between_blocks_go_back_to_the_machine_where_that_is_asked_for(
    ask: str, returned: bool
) -> None:
    said = subprocess.run(
        [sys.executable, "-c", HOLES.format(ask=ask)], check=True, capture_output=True, text=True
    )
    freed_mib = int(said.stdout)
    assert freed_mib >= 60 if returned else freed_mib <= 4
