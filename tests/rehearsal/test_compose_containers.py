"""deploy/compose.yaml in containers: a night over the real scenes, an upgrade, new secrets, crashes, the end.

One run of the tests, in the file's order: what is changed stays so for those below.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from integration.fleet import COARSE, FINAL
from integration.test_secrets import forms
from notices import s3_event
from servers.compose import Composed, composed, container
from servers.engine import Engine
from servers.process import LOOPBACK, ROOT, ServerError, free_ports, listens

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.real]

OF_ENGINE = {"HOSTNAME", "TERM", "container"}
"""Variables that every container has."""

WITHOUT = frozenset({"grafana"})
"""Debian has no Grafana: its dashboard and its provisioning are checked by their schemas alone."""

PORTS = ("PREFECT", "S3", "DASK", "LISTEN", "SITE", "PROMETHEUS")

IMAGE, NEXT = "crosstie:0.1.0", "crosstie:0.1.1"

CRASHING = (
    "postgres",
    "prefect-server",
    "prefect-worker",
    "dask-scheduler",
    "dask-matcher",
    "listener",
    "site",
)
"""Killed at once, as by a machine that is short of memory."""

PATIENCE_S = 600.0
"""With other tests beside it on few cores."""

S3_HEALTH = "CMD, /bin/sh, /etc/crosstie/s3-health.sh"

MEMORY_LIMIT = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max"
"""Of a container: control groups of the first version, or of the second."""

THREE = {"T11SLT": "corrected", "T11SMT": "already_aligned", "T14RNT": "already_aligned"}
"""What is known of the real pairs, by Sentinel-2 tile."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Machine:
    """All services, and what an operator has of them: ports and secrets."""

    composed: Composed
    ports: dict[str, int]
    folder: Path
    """Of the secrets."""
    ill: str
    """What services said that did not get well at the start."""

    @property
    def secrets(self) -> dict[str, str]:
        return {path.name: path.read_text().strip() for path in self.folder.iterdir()}

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

    def start_night(self) -> str:
        """Start the nightly deployment, coarse, to be done in seconds; the id of its run."""
        deployment = self.prefect("/deployments/name/crosstie-nightly/nightly", method="GET")["id"]
        parameters = {"parameters": {"settings": COARSE}}
        started: str = self.prefect(f"/deployments/{deployment}/create_flow_run", parameters)["id"]
        return started

    def state(self, run: str) -> Json:
        found: Json = self.prefect(f"/flow_runs/{run}", method="GET")
        return found

    def notice(self, token: str | None = None) -> tuple[int, str]:
        """What the listener answers to a notice of an object that went."""
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )
        body = json.dumps(s3_event("some/scene.tif", "ObjectRemoved:Delete")).encode()
        return ask(f"{self.url('LISTEN')}/scenes", body, headers)

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


def password(token: str) -> dict[str, str]:
    return {"Authorization": basic(f"anyone:{token}")}


def ask(url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as problem:
        return problem.code, problem.read().decode()


@pytest.fixture(scope="module")
def machine(
    engine: Engine, built: str, of_others: None, tmp_path_factory: pytest.TempPathFactory, real_data: Path
) -> Iterator[Machine]:
    """All services but Grafana, with secrets as the README makes them; the scenes are in a folder."""
    assert built == f"localhost/{IMAGE}"
    folder = tmp_path_factory.mktemp("compose")
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    made = made_secrets(folder)
    variables = {
        "CROSSTIE_CATALOG_URL": "/scenes/catalog.json",
        "CROSSTIE_SCENES": str((real_data / "scenes").resolve()),
        "CROSSTIE_SECRETS": str(made),
        **{f"CROSSTIE_{name}_PORT": str(port) for name, port in ports.items()},
    }
    with composed(engine, folder, variables, without=WITHOUT) as found:
        yield Machine(found, ports, made, found.bring_up(timeout_s=PATIENCE_S))


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
    """The nightly deployment over the real scenes of the catalog."""
    run = machine.start_night()
    figures, named, deadline = "", set[str](), time.monotonic() + PATIENCE_S
    while True:
        state = machine.state(run)
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


def test_every_service_is_well(machine: Machine) -> None:
    if machine.ill:
        pytest.fail(machine.ill)
    composed = machine.composed
    assert [name for name in composed.services if composed.inspect(name)["RestartCount"]] == []


def test_every_container_is_as_the_file_says(machine: Machine) -> None:
    names = machine.composed.engine.ask("ps", "--all", "--format={{.Names}}").splitlines()
    assert sorted(names) == sorted(map(container, machine.composed.services))
    for name, declared in machine.composed.services.items():
        about = machine.composed.inspect(name)
        host = about["HostConfig"]
        assert about["ImageName"].rpartition("/")[2] == declared["image"].rpartition("/")[2]
        assert host["RestartPolicy"]["Name"] == declared["restart"].partition(":")[0]
        assert host["ReadonlyRootfs"], name
        assert {*about["NetworkSettings"]["Networks"]} == {f"crosstie_{net}" for net in declared["networks"]}
        published = {
            (port, bound["HostIp"]) for port, all_bound in host["PortBindings"].items() for bound in all_bound
        }
        assert published == {
            (f"{text.rpartition(':')[2]}/tcp", LOOPBACK) for text in declared.get("ports", [])
        }
        if name != "deploy":  # it has ended
            limit = machine.composed.execute(name, "/bin/sh", "-c", MEMORY_LIMIT)
            assert int(limit.stdout) == host["Memory"] == size(declared["mem_limit"]), name


def size(text: str) -> int:
    return int(text[:-1]) << {"m": 20, "g": 30}[text[-1]]


def test_every_service_runs_its_own_command_as_its_user_and_may_do_no_more(machine: Machine):
    composed = machine.composed
    for name, declared in composed.services.items():
        if name == "deploy":  # it has ended, well
            continue
        commands = {process.pid: process.cmdline() for process in composed.processes(name)}
        wanted = list(map(str, declared.get("command", ["postgres"])))
        running = [
            pid for pid, words in commands.items() if words[len(words) - len(wanted) + 1 :] == wanted[1:]
        ]
        assert running, (name, commands)
        status = dict(
            line.split(":\t")
            for line in Path(f"/proc/{running[-1]}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert int(status["CapEff"], 16) == 0, name
        assert status["NoNewPrivs"] == "1"
        uid = int(status["Uid"].split()[0])
        assert uid != 0
        if declared["image"] == IMAGE:
            assert uid == 10001
        assert "Read-only" in composed.execute(name, "sh", "-c", ": >/usr/x || true; : >/x").stderr


def test_every_service_has_the_environment_that_is_declared_and_its_own_secrets_alone(machine: Machine):
    shell = {"PWD", "OLDPWD", "SHLVL", "_"}
    for name, declared in machine.composed.services.items():
        if name == "deploy":
            continue
        seen = machine.composed.processes(name)[-1].environ()
        given = {key: str(value) for key, value in declared.get("environment", {}).items()}
        if declared["image"] == IMAGE:
            files = {key: value for key, value in given.items() if value.startswith("/run/secrets/")}
            secret = {
                key.removesuffix("_FILE"): machine.secrets[Path(value).name] for key, value in files.items()
            }
            of_image = json.loads(machine.composed.engine.ask("image", "inspect", IMAGE))[0]["Config"]["Env"]
            expected = dict(pair.split("=", 1) for pair in of_image)
            expected |= {key: value for key, value in given.items() if key not in files} | secret
            assert {key: value for key, value in seen.items() if key not in shell | OF_ENGINE} == expected, (
                name
            )
        mounted = machine.composed.execute(name, "ls", "/run/secrets").stdout.split()
        assert mounted == sorted(declared.get("secrets", [])), name
        for key, value in machine.secrets.items():
            assert key in mounted or value not in "\0".join(seen.values()), f"{key} in {name}"


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
    assert machine.notice()[0] == 401
    assert machine.notice(machine.secrets["listen_token"])[0] == 200

    def known() -> bool:
        return (
            machine.query('sum by (verdict) (crosstie_archive_pairs{verdict!="unreliable"})')
            == {("already_aligned",): 2, ("corrected",): 1}
            and sum(machine.query('crosstie_notices_total{answer="401"}').values()) == 1
            and sum(machine.query("crosstie_tiles_total").values()) > 20
            and machine.query('up{job!="crosstie-runs"} == 0') == {}  # none was too slow to answer just now
        )

    composed.until(known, timeout_s=PATIENCE_S, what="Prometheus has what the services say")

    def last_figures() -> dict[tuple[str, ...], float]:
        done = machine.query('sum by (verdict) (max_over_time(crosstie_pairs_total{reason=""}[10m]))')
        return {verdict: count for verdict, count in done.items() if count}

    # the run is over, but goes only once Prometheus has asked for its last figures
    composed.until(
        lambda: last_figures() == {("already_aligned",): 2, ("corrected",): 1},
        timeout_s=PATIENCE_S,
        what="Prometheus has the last figures of the run",
    )
    jobs = {labels[-1] for labels in machine.query('up{job!="crosstie-runs"}')}
    assert len(jobs) == 5, jobs
    rules = json.loads(ask(f"{machine.url('PROMETHEUS')}/api/v1/rules")[1])["data"]["groups"]
    assert [rule["lastError"] for group in rules for rule in group["rules"] if rule["health"] == "err"] == []


def test_the_site_shows_the_night_to_whom_has_its_token(machine: Machine, night: Night):
    page = f"{machine.url('SITE')}/"
    assert ask(page)[0] == 401
    code, text = ask(page, headers=password(machine.secrets["site_token"]))
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
    written |= machine.products()
    for name in machine.composed.services:
        written[f"log of {name}"] = machine.composed.log(name).encode()
        written[f"container of {name}"] = json.dumps(machine.composed.inspect(name)).encode()
        for process in machine.composed.processes(name) if name != "deploy" else ():
            written[f"command of {process.pid} of {name}"] = "\0".join(process.cmdline()).encode()
    assert all(written[f"log of {name}"] for name in ("prefect-worker", "s3", "postgres"))
    known = machine.secrets | {"password": machine.secrets["prefect_auth"].partition(":")[2]}
    found = [
        f"{name} in {where}"
        for where, body in written.items()
        for name, secret in known.items()
        for form in forms(secret)
        if form in body
    ]
    assert found == []


def test_an_upgrade_keeps_what_there_is(machine: Machine, night: Night):
    composed, kept = machine.composed, machine.products()
    composed.engine.ask("tag", IMAGE, NEXT)
    with composed.environment.open("a") as variables:
        variables.write(f"CROSSTIE_IMAGE={NEXT}\n")
    ours = {name for name, about in composed.services.items() if about["image"] == IMAGE}
    composed.compose("down", *sorted(ours))
    assert composed.bring_up(ours, timeout_s=PATIENCE_S) == ""
    newer = {name for name in composed.services if composed.inspect(name)["ImageName"].endswith(NEXT)}
    assert newer == ours
    assert machine.prefect(f"/flow_runs/{night.run['id']}", method="GET")["state_type"] == "COMPLETED"
    assert machine.products() == kept


def test_a_secret_that_is_rotated_is_taken_and_the_old_one_refused(machine: Machine, night: Night):
    composed, old = machine.composed, machine.secrets
    old_clients = [machine.objects(keys) for keys in ("s3", "s3_site")]
    rotated = {"listen_token", "prefect_auth", "s3_secret_key", "s3_site_secret_key", "site_token"}
    for name in rotated:
        path, user = machine.folder / name, "crosstie:" if name == "prefect_auth" else ""
        path.unlink()
        path.write_text(f"{user}{secrets.token_hex(24)}\n")
        path.chmod(0o444)
    mounting = {name for name, about in composed.services.items() if rotated & {*about.get("secrets", [])}}
    assert mounting == {"dask-reader", "deploy", "listener", "prefect-server", "prefect-worker", "s3", "site"}
    assert composed.bring_up(mounting, "--force-recreate", timeout_s=PATIENCE_S) == ""
    for known, answer in ((old, 401), (machine.secrets, 200)):
        assert ask(f"{machine.url('SITE')}/", headers=password(known["site_token"]))[0] == answer
        authorised = {"Authorization": basic(known["prefect_auth"])}
        assert ask(f"{machine.url('PREFECT')}/api/version", headers=authorised)[0] == answer
        assert machine.notice(known["listen_token"])[0] == answer
    for client in old_clients:
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            client.list_objects_v2(Bucket="products")
    assert machine.objects("s3_site").list_objects_v2(Bucket="products")["KeyCount"] > 0


def test_what_crashes_comes_back_and_the_next_night_finds_all_done(machine: Machine, night: Night):
    composed, kept = machine.composed, machine.products()
    for name in CRASHING:
        composed.processes(name)[0].kill()
    composed.until(
        lambda: all(composed.inspect(name)["RestartCount"] and composed.is_well(name) for name in CRASHING),
        timeout_s=PATIENCE_S,
        what="those that crashed are back",
    )
    run = machine.start_night()
    composed.until(
        lambda: machine.state(run)["state_type"] in FINAL, timeout_s=PATIENCE_S, what="the run is over"
    )
    assert machine.state(run)["state_type"] == "COMPLETED", composed.log("prefect-worker")
    found = machine.products()
    assert kept.items() <= found.items()
    assert {key.split("/")[0] for key in found.keys() - kept.keys()} == {"_runs"}


def test_nothing_is_left(machine: Machine):
    processes = [process for name in machine.composed.services if name != "deploy"
                 for process in machine.composed.processes(name)]  # fmt: skip
    machine.composed.compose("down", "--volumes")
    engine = machine.composed.engine
    for what in ("ps --all", "volume ls", "network ls --filter=name=crosstie"):
        assert engine.ask(*what.split(), "--quiet") == "", what
    assert [process for process in processes if process.is_running()] == []
    assert [name for name, port in machine.ports.items() if listens(port)] == []


@pytest.mark.parametrize(
    ("service", "fault", "said"),
    [
        (
            "prefect-server",
            "environment: {PREFECT_SERVER_DATABASE_PASSWORD_FILE: /run/secrets/prefect_auth}",
            "password authentication failed",
        ),
        ("prefect-server", "networks: !override [work]", "Name or service not known"),
        ("s3", f"healthcheck: {{test: !override [{S3_HEALTH}, porducts]}}", "SeaweedFS"),
    ],
    ids=["wrong secret", "missing network", "bad health check"],
)
def test_a_fault_in_the_file_is_told_of_the_service_that_has_it(
    machine: Machine, tmp_path: Path, service: str, fault: str, said: str
):
    (tmp_path / "fault.yaml").write_text(f"services:\n  {service}:\n    {fault}\n")
    faulty = replace(machine.composed, files=[*machine.composed.files, tmp_path / "fault.yaml"])
    assert faulty.bring_up({"postgres"}, timeout_s=PATIENCE_S) == ""
    told = faulty.bring_up({service}, timeout_s=1)
    assert told.startswith(f"{service}: ")
    faulty.until(lambda: said in faulty.log(service), timeout_s=PATIENCE_S, what=f"{service} says {said!r}")
    if service == "s3":
        faulty.until(lambda: can_write(machine), timeout_s=PATIENCE_S, what="the store can be written")
    assert not faulty.is_well(service)
    assert faulty.is_well("postgres")


def can_write(machine: Machine) -> bool:
    try:
        machine.objects().put_object(Bucket="products", Key="new", Body=b"1")
    except (BotoCoreError, ClientError):
        return False
    return True
