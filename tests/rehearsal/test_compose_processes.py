"""The process set of deploy/compose.yaml, started without an engine, registers the real scenes."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from botocore.exceptions import ClientError
from integration.fleet import COARSE, FINAL
from integration.test_secrets import forms
from notices import s3_event
from servers.compose import Composed, compose_processes, why_not
from servers.compose_images import stand_in
from servers.process import LOOPBACK, ROOT, ServerError, ServerMissingError, free_ports

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.real]

WITHOUT = frozenset({"grafana"})
"""Debian has no Grafana: its dashboard and its provisioning are checked by their schemas alone."""

PORTS = ("PREFECT", "S3", "DASK", "LISTEN", "SITE", "PROMETHEUS")

THREE = {"T11SLT": "corrected", "T11SMT": "already_aligned", "T14RNT": "already_aligned"}
"""What is known of the real pairs, by Sentinel-2 tile."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Machine:
    """All services, and what an operator has of them: ports and secrets."""

    composed: Composed
    ports: dict[str, int]
    secrets: dict[str, str] = field(repr=False)

    def url(self, name: str) -> str:
        return f"http://{LOOPBACK}:{self.ports[name]}"

    def prefect(self, path: str, body: object = None, *, method: str = "POST") -> Any:
        code, text = ask(
            f"{self.url('PREFECT')}/api{path}",
            None if method == "GET" else json.dumps(body or {}).encode(),
            {"Content-Type": "application/json", "Authorization": basic(self.secrets["prefect_auth"])},
        )
        assert code < 300, f"{path}: {code} {text}"
        return json.loads(text) if text else None

    def objects(self, keys: str = "s3") -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url("S3"),
            region_name="us-east-1",
            aws_access_key_id=self.secrets[f"{keys}_access_key"],
            aws_secret_access_key=self.secrets[f"{keys}_secret_key"],
        )

    def products(self) -> dict[str, bytes]:
        client = self.objects()
        found = client.list_objects_v2(Bucket="products").get("Contents", [])
        return {
            one["Key"]: client.get_object(Bucket="products", Key=one["Key"])["Body"].read() for one in found
        }

    def query(self, expression: str) -> dict[tuple[str, ...], float]:
        """What Prometheus knows: value by the values of the labels, names of labels in order."""
        query = urllib.parse.urlencode({"query": expression})
        code, text = ask(f"{self.url('PROMETHEUS')}/api/v1/query?{query}")
        assert code == 200, text
        return {
            tuple(value for label, value in sorted(one["metric"].items()) if label != "__name__"): float(
                one["value"][1]
            )
            for one in json.loads(text)["data"]["result"]
        }


@dataclass(frozen=True, slots=True)
class Night:
    """A nightly run that has ended."""

    run: Json
    figures: str
    """What it said at /metrics when its first pair was done."""
    named: frozenset[str]
    """Figures that it showed at any time."""


def pairs_of(figures: str) -> dict[str, float]:
    """Pairs that a run has done, by verdict."""
    found = re.findall(
        r'^crosstie_pairs_total\{flow="nightly",reason="",verdict="(\w+)"\} (\S+)', figures, re.MULTILINE
    )
    return {verdict: float(count) for verdict, count in found if float(count)}


def basic(user_and_password: str) -> str:
    return "Basic " + base64.b64encode(user_and_password.encode()).decode()


def ask(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Iterator[Machine]:
    """All services but Grafana, with secrets as the README makes them; the scenes are in a folder."""
    if problem := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(problem)
        pytest.skip(problem)
    folder = tmp_path_factory.mktemp("compose")
    secrets = made_secrets(folder)
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    variables = {
        "CROSSTIE_CATALOG_URL": "/scenes/catalog.json",
        "CROSSTIE_SCENES": str((real_data / "scenes").resolve()),
        "CROSSTIE_SECRETS": str(secrets),
        **{f"CROSSTIE_{name}_PORT": str(port) for name, port in ports.items()},
    }
    try:
        with compose_processes(
            folder / "run", variables=variables, profiles=frozenset({"monitoring"}), without=WITHOUT
        ) as composed:
            composed.until(composed.ready, timeout_s=400, what="all services are well")
            known = {path.name: path.read_text().strip() for path in secrets.iterdir()}
            yield Machine(composed, ports, known)
    except ServerMissingError as problem:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(problem))


def made_secrets(folder: Path) -> Path:
    """The folder of secrets, by the commands of the README."""
    page = (ROOT / "deploy" / "compose" / "README.md").read_text(encoding="utf-8")
    (commands,) = re.findall(
        r"^<!-- run by tests/rehearsal.* -->\n```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL
    )
    (folder / "deploy" / "compose").mkdir(parents=True)
    subprocess.run(["sh", "-euc", commands], cwd=folder, check=True, timeout=60)
    return folder / "deploy" / "compose" / "secrets"


@pytest.fixture(scope="module")
def night(machine: Machine) -> Night:
    """The nightly deployment over the real scenes of the catalog; coarse, to be done in seconds."""
    deployment = machine.prefect("/deployments/name/crosstie-nightly/nightly", method="GET")["id"]
    parameters = {"parameters": {"settings": COARSE}}
    run = machine.prefect(f"/deployments/{deployment}/create_flow_run", parameters)
    figures, named, deadline = "", set[str](), time.monotonic() + 400
    while True:
        state = machine.prefect(f"/flow_runs/{run['id']}", method="GET")
        if state["state_type"] in FINAL:
            break
        assert time.monotonic() < deadline, machine.composed.log("prefect-worker")
        # its last figures are Prometheus's to fetch: a run goes once they have been
        if not pairs_of(figures):
            try:
                figures = machine.composed.get("prefect-worker", 9101, "/metrics")
                named.update(re.findall(r"^(crosstie_\S+) ", figures, re.MULTILINE))
            except ServerError:  # not begun yet
                figures = ""
        time.sleep(1)
    assert state["state_type"] == "COMPLETED", machine.composed.log("prefect-worker")
    return Night(state, figures, frozenset(named))


def test_every_service_runs_its_own_command_as_its_user_and_may_do_no_more(machine: Machine):
    composed = machine.composed
    assert {found["service"] for found in composed.state().values()} == set(composed.services)
    for name, service in composed.services.items():
        if name == "deploy":  # it has ended, well
            continue
        image = stand_in(service.image)
        processes = composed.processes(name)
        wanted = list(service.command or image.command)
        commands = {process.pid: process.cmdline() for process in processes}
        running = [
            pid for pid, words in commands.items() if words[len(words) - len(wanted) + 1 :] == wanted[1:]
        ]
        assert running, (name, commands)
        assert all(found["starts"] == 1 for found in composed.of(name)), composed.told()
        status = dict(
            line.split(":\t")
            for line in Path(f"/proc/{running[-1]}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert int(status["CapEff"], 16) == 0, name
        assert status["NoNewPrivs"] == "1"
        uid = int(status["Uid"].split()[0])
        assert uid != 0
        if service.image.startswith("crosstie:"):
            assert uid == 10001
        assert "Read-only" in composed.execute(name, "sh", "-c", ": >/usr/x || true; : >/x").stderr


def test_every_service_has_the_environment_that_is_declared_and_its_own_secrets_alone(machine: Machine):
    shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    for name, service in machine.composed.services.items():
        if name == "deploy":
            continue
        process = machine.composed.processes(name)[-1]
        seen = process.environ()
        declared = {**stand_in(service.image).environment, **service.environment}
        if service.image.startswith("crosstie:"):
            files = {key: value for key, value in declared.items() if value.startswith("/run/secrets/")}
            secret = {
                key.removesuffix("_FILE"): machine.secrets[Path(value).name] for key, value in files.items()
            }
            expected = {key: value for key, value in declared.items() if key not in files} | secret
            assert {key: value for key, value in seen.items() if key not in shell} == expected, name
        mounted = {
            Path(mount.target).name for mount in service.mounts if mount.target.startswith("/run/secrets/")
        }
        for key, value in machine.secrets.items():
            if key not in mounted:
                assert value not in "\0".join(seen.values()), f"{key} in the environment of {name}"
                assert machine.composed.execute(name, "cat", f"/run/secrets/{key}").returncode != 0


def test_the_database_is_reached_from_prefects_server_alone(machine: Machine):
    connect = "import socket, sys; socket.create_connection((sys.argv[1], 5432), timeout=3)"
    for service, reaches in (("prefect-server", True), ("dask-matcher", False), ("listener", False)):
        done = machine.composed.execute(service, "python3", "-c", connect, "postgres")
        assert (done.returncode == 0) is reaches, (service, done.stderr)
        assert reaches or "Name or service not known" in done.stderr


def test_a_night_is_registered_and_kept(machine: Machine, night: Night):
    products = machine.products()
    found = {
        correction["pair"]["reference"]["id"].split("_")[5]: correction["verdict"]
        for key, body in products.items()
        if key.endswith("/correction.json")
        for correction in [json.loads(body)]
    }
    assert found == THREE
    assert len([key for key in products if key.endswith("/_COMMIT")]) == 3
    table = "select state_type from flow_run where id = " + f"'{night.run['id']}'"
    kept = machine.composed.execute(
        "postgres", "psql", "--username=prefect", "--tuples-only", "--command", table
    )
    assert kept.stdout.strip() == "COMPLETED", kept.stderr


def test_each_shows_its_figures(machine: Machine, night: Night):
    get = machine.composed.get
    assert pairs_of(night.figures).keys() <= {"corrected", "already_aligned"}
    assert sum(pairs_of(night.figures).values()) in {1, 2, 3}
    wanted = {
        'crosstie_windows{state="under_way"}',
        'crosstie_workers{role="matcher"}',
        'crosstie_retries_total{kind="pair"}',
    }
    assert wanted <= night.named
    tiles = float(re.search(r"^crosstie_tiles_total (\S+)", get("dask-matcher", 8788, "/metrics"), re.M)[1])
    assert tiles > 20
    read = float(
        re.search(r"^crosstie_read_bytes_total (\S+)", get("dask-reader", 8788, "/metrics"), re.M)[1]
    )
    assert read > 1e6
    assert "dask_scheduler_workers" in get("dask-scheduler", 8787, "/metrics")
    assert "crosstie_notices_total" in get("listener", 8090, "/metrics")
    assert "crosstie_archive_pairs" in get("site", 8091, "/metrics")


def test_prometheus_has_fetched_them(machine: Machine, night: Night):
    composed = machine.composed
    notice = json.dumps(s3_event("some/scene.tif", "ObjectRemoved:Delete")).encode()
    kind = {"Content-Type": "application/json"}
    assert ask(f"{machine.url('LISTEN')}/scenes", notice, kind)[0] == 401
    bearer = {**kind, "Authorization": f"Bearer {machine.secrets['listen_token']}"}
    assert ask(f"{machine.url('LISTEN')}/scenes", notice, bearer)[0] == 200

    def known() -> bool:
        return (
            machine.query('sum by (verdict) (crosstie_archive_pairs{verdict!="unreliable"})')
            == {("already_aligned",): 2, ("corrected",): 1}
            and sum(machine.query('crosstie_notices_total{answer="401"}').values()) == 1
            and sum(machine.query("crosstie_tiles_total").values()) > 20
            and machine.query('up{job!="crosstie-runs"} == 0') == {}  # none was too slow to answer just now
        )

    composed.until(known, timeout_s=150, what="Prometheus has what the services say")

    def last_figures() -> dict[tuple[str, ...], float]:
        done = machine.query('sum by (verdict) (max_over_time(crosstie_pairs_total{reason=""}[10m]))')
        return {verdict: count for verdict, count in done.items() if count}

    # the run is over, but goes only once Prometheus has asked for its last figures
    composed.until(
        lambda: last_figures() == {("already_aligned",): 2, ("corrected",): 1},
        timeout_s=60,
        what="Prometheus has the last figures of the run",
    )
    jobs = {labels[-1] for labels in machine.query('up{job!="crosstie-runs"}')}
    assert len(jobs) == 5, jobs
    rules = json.loads(ask(f"{machine.url('PROMETHEUS')}/api/v1/rules")[1])["data"]["groups"]
    assert [rule["lastError"] for group in rules for rule in group["rules"] if rule["health"] == "err"] == []


def test_the_site_shows_the_night_to_whom_has_its_token(machine: Machine, night: Night):
    page = f"{machine.url('SITE')}/"
    assert ask(page)[0] == 401
    code, text = ask(page, headers={"Authorization": basic(f"anyone:{machine.secrets['site_token']}")})
    assert code == 200
    assert all(tile in text for tile in THREE)


def test_the_keys_of_the_site_can_only_read(machine: Machine, night: Night):
    key = next(key for key in machine.products() if key.endswith("_COMMIT"))
    reader = machine.objects("s3_site")
    kept = reader.get_object(Bucket="products", Key=key)["Body"].read()
    assert reader.list_objects_v2(Bucket="products")["KeyCount"] > 0
    for tried in (
        lambda: reader.put_object(Bucket="products", Key=key, Body=b"{}"),
        lambda: reader.put_object(Bucket="products", Key="new", Body=b"{}"),
        lambda: reader.delete_object(Bucket="products", Key=key),
        lambda: reader.create_multipart_upload(Bucket="products", Key="new"),
        lambda: reader.create_bucket(Bucket="mine"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            tried()
    assert machine.products()[key] == kept
    assert "new" not in machine.products()


def test_no_secret_is_said_anywhere(machine: Machine, night: Night):
    dumped = machine.composed.execute("postgres", "pg_dump", "--username=prefect", "--dbname=prefect")
    assert night.run["id"] in dumped.stdout
    written: dict[str, bytes] = {"database": dumped.stdout.encode(), "figures": night.figures.encode()}
    for path in machine.composed.folder.glob("*.*"):
        written[path.name] = path.read_bytes()
    for path in (machine.composed.folder / "boxes").glob("*.json"):
        written[path.name] = path.read_bytes()
    written |= machine.products()
    for process in psutil.Process(machine.composed.engine.pid).children(recursive=True):
        written[f"command of {process.pid}"] = "\0".join(process.cmdline()).encode()
    assert {"prefect-worker-1.log", "s3-1.log", "postgres-1.log", "plan.json"} <= written.keys()
    secrets = machine.secrets | {"password": machine.secrets["prefect_auth"].partition(":")[2]}
    found = [
        f"{name} in {where}"
        for where, body in written.items()
        for name, secret in secrets.items()
        for form in forms(secret)
        if form in body
    ]
    assert found == []
