"""A user of the same machine other than the operator gets nothing out of a run, through any of its ports.

- Dask's scheduler, workers and nannies (`flows/cluster/local.py`): without TLS they answer `identity`
- their HTTP servers (the same file): with routes they name tasks, workers and files
- the run's own Prefect server (`flows/runs/own_server.py`): without a password it gives runs and parameters
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from crosstie.io.simulation.pairs import write_simulated_catalog

PROBE = """
import asyncio, json, os, sys, threading, time, urllib.error, urllib.request
from distributed.comm import connect
from distributed.security import Security
import distributed.protocol.serialize, encodings.idna, http.client

own = Security.temporary()
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print("ready", flush=True)

async def asked(port, scheme, security):
    arguments = security.get_connection_args("client") if security else {}
    comm = await connect(f"{scheme}://127.0.0.1:{port}", timeout=3, **arguments)
    try:
        await comm.write({"op": "identity", "reply": True})
        return str(await asyncio.wait_for(comm.read(), 3))[:200]
    finally:
        comm.abort()

def fetched(port, path, data):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data)
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=3) as answer:
        return answer.read(200).decode("latin-1")

PAGES = [
    ("/api/flow_runs/filter", b"{}"), ("/api/flows/filter", b"{}"), ("/api/task_runs/filter", b"{}"),
    ("/api/logs/filter", b"{}"), ("/api/artifacts/filter", b"{}"), ("/api/deployments/filter", b"{}"),
    ("/api/admin/settings", None), ("/info/main/workers.html", None), ("/json/index.html", None),
    ("/json/identity.json", None), ("/metrics", None), ("/api/v1", None), ("/correction.json", None),
]

def say(line):
    with SAYING:
        sys.stdout.write(line + "\\n")
        sys.stdout.flush()

SAYING = threading.Lock()

def look(port):
    for path, data in PAGES:
        try:
            said = fetched(port, path, data)
        except Exception:
            continue
        say(json.dumps([port, path, said]))
    for scheme, security in (("tcp", None), ("tls", own), ("ws", None)):
        try:
            said = asyncio.run(asked(port, scheme, security))
        except Exception:
            continue
        say(json.dumps([port, scheme, said]))
    say(json.dumps([port, "looked at", ""]))

looks, begun = [], {}
for line in sys.stdin:
    if line.strip() == "end":
        break
    for port in map(int, line.split()):
        # again after a while: a server listens before it answers
        if time.monotonic() - begun.get(port, -99) > 5:
            begun[port] = time.monotonic()
            looks.append(threading.Thread(target=look, args=(port,)))
            looks[-1].start()
    say("round")
    time.sleep(0.2)
for one in looks:
    one.join()
"""


def ports_of(process: int) -> set[int]:
    """Ports on which a process and those that it has started listen."""
    found: set[int] = set()
    with suppress(psutil.NoSuchProcess):
        for one in (parent := psutil.Process(process), *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                found |= {
                    place.laddr.port
                    for place in one.net_connections("tcp")
                    if place.status == psutil.CONN_LISTEN
                }
    return found


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_this_machine_gets_nothing_out_of_a_run(tmp_path: Path):
    catalog = write_simulated_catalog(tmp_path / "scenes", scenes=1, size_px=448)
    settings = [sys.executable, "-m", "crosstie", "nightly", "--catalog", str(catalog)]
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect")}
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"):
        environment.pop(name, None)
    with (
        subprocess.Popen(
            [sys.executable, "-c", PROBE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as probe,
    ):
        assert probe.stdin is not None
        assert probe.stdout is not None
        assert probe.stdout.readline() == "ready\n"
        found = []
        with subprocess.Popen(
            [*settings, "--out", str(tmp_path / "out")], env=environment, stdout=subprocess.PIPE, text=True
        ) as run:
            while run.poll() is None:
                probe.stdin.write(" ".join(map(str, ports_of(run.pid))) + "\n")
                probe.stdin.flush()
                while (line := probe.stdout.readline()) != "round\n":
                    assert line, "the probe has ended"
                    found.append(json.loads(line))
        probe.stdin.write("end\n")
        probe.stdin.close()
        found += [json.loads(line) for line in probe.stdout]
    assert run.returncode in (0, 3)
    assert len({port for port, what, _ in found if what == "looked at"}) >= 5  # Dask's and Prefect's
    assert [entry for entry in found if entry[1] != "looked at"] == []
