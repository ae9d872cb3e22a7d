"""All servers at once, by hand: prints their addresses and what to export, and stops them at Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from servers.dask_cluster import dask_cluster
from servers.pgstac import pgstac
from servers.prefect_server import POOL, prefect_server
from servers.process import ServerMissingError
from servers.seaweed import seaweed

BUCKETS = ("scenes", "products")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make servers", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where logs and data go; a temporary one otherwise")
    parser.add_argument("--exports", type=Path, help="also write the export lines to this file")
    folder: Path | None = parser.parse_args().folder
    exports: Path | None = parser.parse_args().exports
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
    ):  # also where the shell told it to ignore them
        signal.signal(number, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crosstie-servers-")))
        run(folder.resolve(), exports, stack)
    tell("stopped")


def run(folder: Path, exports: Path | None, stack: ExitStack) -> None:
    tell(f"starting; logs are in {folder}")
    objects = stack.enter_context(seaweed(folder, buckets=BUCKETS))
    cluster = stack.enter_context(dask_cluster(folder, environment=objects.environment))
    environment = objects.environment | cluster.environment
    server = stack.enter_context(prefect_server(folder, flow_environment=environment))
    try:
        api = stack.enter_context(pgstac(folder)).url
    except ServerMissingError as problem:
        api = f"none: {problem}"
    environment |= server.environment
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(environment.items())]
    tell(
        "",
        f"S3         {objects.endpoint} (buckets: {', '.join(BUCKETS)}; counters: {objects.metrics})",
        f"STAC API   {api}",
        f"Dask       {cluster.address} ({', '.join(cluster.workers)})",
        f"Prefect    {server.url} (a process worker serves the work pool {POOL})",
        "",
        *lines,
        "",
        "Ctrl-C stops them.",
    )
    if exports is not None:
        exports.write_text("\n".join(lines) + "\n")
    signal.pause()


def tell(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
