"""Decode the files of a table in a process of its own, which may take only so much memory and time.

A Parquet file of 35 kB can hold 1.5 GB: runs of equal values, compressed pages, lies about both in its
headers. No check beforehand finds them all, so the process that decodes is limited by the system. It opens
local files itself; for remote files it asks this process for each piece, so that this one alone has
connections, and counts what comes in.
"""

from __future__ import annotations

import io
import os
import pickle
import resource
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from crosstie.errors import CatalogError
from crosstie.io.storage.budget import CatalogBudget, CatalogLimits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from crosstie.io.catalog.table_selection import TableRequest

PIECE = struct.Struct("<IQQ")
"""What is asked for: number of the file, first byte, number of bytes."""

SIZE = struct.Struct("<q")
"""What is answered: number of bytes that follow, or -1 if they cannot be read."""

START = """
import sys, types
pandas = types.ModuleType("pandas")
pandas.__version__ = "0"  # pyarrow would import it, which takes most of the start; it uses none so old
sys.modules["pandas"] = pandas
from crosstie.io.catalog.table_process import main
main()
"""

BATCH_ROWS = 8192
"""Rows that are decoded at once."""

FEW_THREADS = {"ARROW_IO_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
"""Each thread reserves memory that counts towards the limit."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """One file of a table."""

    path: str
    files: Any = None
    """Its fsspec filesystem; None for a file of this machine."""


def decoded(files: Sequence[TableFile], request: TableRequest, budget: CatalogBudget) -> list[pa.Table]:
    """Read the wanted rows and columns of a table, apart for each set of columns that files of it have.

    Raises
    ------
    CatalogError
        It cannot be read, or exceeds a limit.
    OSError
        A file is not there.
    """
    opened = [None if file.files is None else file.files.open(file.path, "rb") for file in files]
    sizes = [None if file is None else _size_of(file) for file in opened]
    paths = [file.path if size is None else size for file, size in zip(files, sizes, strict=True)]
    here, there = socket.socketpair()
    command = [sys.executable, "-W", "ignore", "-c", START]
    environment = {
        **os.environ,
        **FEW_THREADS,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    with here, there:
        child = subprocess.Popen(  # noqa: S603  # this interpreter, a fixed text
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=[there.fileno()],
        )
        timer = threading.Timer(budget.seconds_left(), child.kill)
        timer.daemon = True
        timer.start()
        failures: list[Exception] = []
        serving = threading.Thread(target=_serve, args=(here, opened, budget, failures, child), daemon=True)
        serving.start()
        try:
            found = _taken_tables(child, (paths, request, budget.limits, there.fileno()), budget)
        except BaseException:
            child.kill()
            raise
        finally:
            timer.cancel()
            said = _end(child)
            here.shutdown(socket.SHUT_RDWR)
            serving.join()
            for file in opened:
                if file is not None:
                    file.close()
    if failures:
        raise failures[0]
    if child.returncode != 0 or found is None:
        budget.seconds_left()
        raise CatalogError(said or _over(budget.limits))
    return found


def _over(limits: CatalogLimits) -> str:
    return (
        f"decoding it takes more than {limits.table_process_bytes // 2**20} MiB or"
        f" {limits.table_process_seconds} s of a processor; split the table, or search less of it"
    )


def _taken_tables(child: subprocess.Popen[bytes], task: Any, budget: CatalogBudget) -> list[pa.Table] | None:
    """Take what the process gives, as long as it is not too much; None if it ended early."""
    if child.stdin is None or child.stdout is None:
        raise ValueError("the process has no pipes")
    taken, limit = 0, budget.limits.table_bytes
    found: dict[str, tuple[pa.Schema, list[pa.RecordBatch]]] = {}
    with suppress(BrokenPipeError):
        child.stdin.write(pickle.dumps(task))
        child.stdin.close()
    try:
        while child.stdout.peek(1):  # type: ignore[attr-defined]  # one stream for each set of columns
            with pa.ipc.open_stream(child.stdout) as stream:
                batches = found.setdefault(str(stream.schema), (stream.schema, []))[1]
                for batch in stream:
                    taken += batch.nbytes
                    budget.items += len(batch)
                    if taken > limit:
                        raise budget.refusal("holds", limit, "bytes of wanted rows")
                    if budget.items > budget.limits.items:
                        raise budget.refusal("gives", budget.limits.items, "items")
                    batches.append(batch)
    except (pa.ArrowException, OSError):
        return None
    return [pa.Table.from_batches(batches, schema) for schema, batches in found.values()] or None


def _end(child: subprocess.Popen[bytes]) -> str:
    """Wait for the process, and give the line in which it says what is wrong; empty if it says none."""
    if child.stdout is not None:
        child.stdout.close()
    said = b"" if child.stderr is None else child.stderr.read(65536)
    child.wait()
    lines = said.decode("utf-8", "replace").splitlines()
    return next((line.removeprefix("refused: ") for line in lines if line.startswith("refused: ")), "")


def _size_of(file: Any) -> int:
    file.seek(0, os.SEEK_END)
    return int(file.tell())


def _serve(
    here: socket.socket,
    files: Sequence[Any],
    budget: CatalogBudget,
    failures: list[Exception],
    child: subprocess.Popen[bytes],
) -> None:
    """Read pieces of remote files for the process until it ends."""
    try:
        while question := _received(here, PIECE.size):
            number, first, count = PIECE.unpack(question)
            budget.add_bytes(count)
            budget.seconds_left()
            files[number].seek(first)
            data = files[number].read(count)
            here.sendall(SIZE.pack(len(data)) + data)
    except Exception as problem:  # noqa: BLE001  # raised by the thread that waits
        if not isinstance(problem, BrokenPipeError | ConnectionResetError):
            failures.append(problem)
        child.kill()


def _received(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            return b""
        data += piece
    return bytes(data)


class _AskedFile(io.RawIOBase):
    """A remote file, in the process that decodes: each piece is asked for."""

    _lock = threading.Lock()

    def __init__(self, connection: socket.socket, number: int, size: int) -> None:
        self._connection, self._number, self._size, self._at = connection, number, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(offset + (0, self._at, self._size)[whence], 0)
        return self._at

    def read(self, count: int = -1) -> bytes:
        left = max(self._size - self._at, 0)
        count = left if count is None or count < 0 else min(count, left)
        if count == 0:
            return b""
        with self._lock:
            self._connection.sendall(PIECE.pack(self._number, self._at, count))
            size = SIZE.unpack(_received(self._connection, SIZE.size))[0]
            data = _received(self._connection, size)
        self._at += len(data)
        return data


def main() -> None:
    """Decode, in the process of its own: the task from standard input, the rows to standard output."""
    from crosstie.io.catalog.table_selection import selection  # imported before the limit counts

    paths, request, limits, number = pickle.load(sys.stdin.buffer)  # noqa: S301  # from the process above
    connection = socket.socket(fileno=number)

    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: PTH123, SIM115
    for what, limit in (
        (resource.RLIMIT_AS, used + limits.table_process_bytes),
        (resource.RLIMIT_CPU, limits.table_process_seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        highest = resource.getrlimit(what)[1]
        lower = limit if highest == resource.RLIM_INFINITY else min(limit, highest)
        resource.setrlimit(what, (lower, lower))
    opened: list[Any] = [
        path if isinstance(path, str) else _AskedFile(connection, n, path) for n, path in enumerate(paths)
    ]
    refused = ""
    try:
        _give_rows(selection, opened, request, limits)
    except (MemoryError, pa.ArrowMemoryError):
        refused = _over(limits)
    except (CatalogError, OSError, pa.ArrowException) as problem:
        lines = str(problem).splitlines() or [type(problem).__name__]
        refused = lines[0][:1000]
    if refused:
        sys.stderr.write(f"refused: {refused}\n")
        sys.stderr.flush()
    # All is given. A thread of Arrow's may still hold a file, and would abort an interpreter that ends.
    os._exit(1 if refused else 0)


def _give_rows(selection: Any, opened: Sequence[Any], request: TableRequest, limits: CatalogLimits) -> None:
    from pyarrow import dataset as ds

    kind = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(
            pre_buffer=False, use_buffered_stream=True
        )
    )
    fragments = [kind.make_fragment(_arrow_file(one)) for one in opened]
    rows, given, writer = 0, None, None
    output = pa.PythonFile(sys.stdout.buffer)
    for fragment in fragments:
        rows += fragment.metadata.num_rows
        if rows > limits.table_rows:
            raise CatalogBudget.refusal("holds", limits.table_rows, "rows")
        schema = fragment.physical_schema
        columns, condition = selection(schema, request)
        scanner = fragment.scanner(
            schema=schema, columns=columns, filter=condition, batch_size=BATCH_ROWS, use_threads=False
        )
        if writer is None or scanner.projected_schema != given:
            if writer is not None:
                writer.close()
            given = scanner.projected_schema
            writer = pa.ipc.new_stream(output, given)
        for batch in _not_empty(scanner.to_batches()):
            writer.write_batch(batch)
    if writer is not None:
        writer.close()
    sys.stdout.buffer.flush()


def _arrow_file(path: Any) -> Any:
    return pa.PythonFile(path, mode="r") if isinstance(path, _AskedFile) else pa.OSFile(path, "rb")


def _not_empty(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    return (batch for batch in batches if len(batch))
