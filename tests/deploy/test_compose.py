"""The compose file: its schema, what it refers to, what its programs take; a misspelling in it is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from deploy.compose_checks import EXAMPLE, PUBLISHED, example, faults, interpolated, variable_faults

ROOT = Path(__file__).resolve().parent.parent.parent
COMPOSE = ROOT / "deploy" / "compose.yaml"
TEXT = COMPOSE.read_text(encoding="utf-8")
S3_ENTRYPOINT = ROOT / "deploy" / "compose" / "s3-entrypoint.sh"
S3_HEALTH = ROOT / "deploy" / "compose" / "s3-health.sh"
README = ROOT / "deploy" / "compose" / "README.md"


def test_the_file_is_well():
    assert faults(TEXT, COMPOSE.parent) == []


def test_it_is_well_for_the_schemas_own_program():
    """As it stands, variables and all: what an editor or another tool shows."""
    command = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("    healthcheck:\n", "    healthchek:\n", "healthchek"),
        ("condition: service_healthy", "condition: service_helthy", "service_helthy"),
        ("      postgres: {condition", "      postgers: {condition", "postgers"),
        ("networks: [database, work]", "networks: [databse, work]", "databse"),
        ("secrets: [prefect_auth]", "secrets: [prefect_atuh]", "prefect_atuh"),
        ("compose/secrets}/listen_token", "compose/secrets}/listen_tokn", "listen_tokn"),
        ("postgres-data:/var", "postgres-dta:/var", "postgres-dta"),
        (":/var/lib/postgresql/data", ":/var/lib/postgres/data", "/var/lib/postgres/data"),
        ("./compose/s3-entrypoint.sh", "./compose/s3-entrypiont.sh", "s3-entrypiont"),
        ("image: postgres:15.20-bookworm", "image: postgers:15.20-bookworm", "postgers"),
        ("image: postgres:15.20-bookworm", "image: postgres:latest", "not pinned"),
        ("crosstie:0.1.0-cuda", "crosstie:0.1.1-cuda", "0.1.1"),
        ("profiles: [gpu]", "profiles: [gup]", "gup"),
        ("PREFECT_SERVER_DATABASE_DRIVER", "PREFECT_SERVER_DATABSE_DRIVER", "PREFECT_SERVER_DATABSE_DRIVER"),
        ("postgresql+asyncpg", "postgresql+asnycpg", "asnycpg"),
        ("CROSSTIE_COMPUTE__CLUSTER", "CROSSTIE_COMPUTE__CLUSTRE", "clustre"),
        ("WORK_STEALING", "WORK_STALING", "WORK_STALING"),
        ("AWS_ACCESS_KEY_ID_FILE", "AWS_ACESS_KEY_ID_FILE", "AWS_ACESS_KEY_ID_FILE"),
        ("AWS_REGION: ", "AWS_REGOIN: ", "AWS_REGOIN"),
        ("- tcp://dask-scheduler:8786", "- tcp://dask-schedular:8786", "dask-schedular"),
        ("http://prefect-server:4200", "http://prefect-server:4020", "4020"),
        ('"crosstie", "site", "--host', '"crosstie", "stie", "--host', "stie"),
        ("- --catalog=", "- --catlog=", "--catlog"),
        ("--resources=GPU=1", "--resources=GUP=1", "GUP"),
        ("- --with-healthcheck", "- --with-helthcheck", "--with-helthcheck"),
        ("work-pool create crosstie", "work-pool create crostie", "crostie"),
        ("prefect-file /opt/crosstie/deploy", "prefect-file /opt/crosstie/depoly", "depoly"),
        ("-s3.autoCreateBucket", "-s3.autoCreateBuckt", "autoCreateBuckt"),
        ("--config.file=", "--config.fiel=", "--config.fiel"),
        ("crosstie/s3-health.sh\", \"", "crosstie/s3-healht.sh\", \"", "s3-healht"),
        ("127.0.0.1:8091/healthz", "127.0.0.1:8091/heatlhz", "heatlhz"),
        ("CROSSTIE_READER_MEMORY", "CROSSTIE_READER_MEMROY", "CROSSTIE_READER_MEMROY"),
        ("no-new-privileges:true", "no-new-priviliges:true", "priviliges"),
        ("cap_drop: [ALL]", "cap_drop: [AL]", "cap_drop"),
        ("x-worker: &worker", "x-wroker: &worker", "wroker"),
    ],
)  # fmt: skip
def test_a_misspelling_is_found(right: str, wrong: str, said: str):
    assert TEXT.count(right) >= 1
    found = faults(TEXT.replace(right, wrong, 1), COMPOSE.parent)
    assert any(said in fault for fault in found), found


def test_a_secret_in_the_open_and_an_open_port_are_found():
    for right, wrong, said in (
        (
            "CROSSTIE_LISTEN_TOKEN_FILE: /run/secrets/listen_token",
            "CROSSTIE_LISTEN_TOKEN: abc",
            "in the open",
        ),
        ('"${CROSSTIE_BIND:-127.0.0.1}:${CROSSTIE_DASK_PORT:-8787}:8787"', '"8787:8787"', "ports must be"),
        ("  read_only: true\n", "", "read_only must be True"),
    ):
        assert right in TEXT
        found = faults(TEXT.replace(right, wrong), COMPOSE.parent)
        assert any(said in fault for fault in found), found


def test_the_example_of_variables_has_just_those_that_are_used():
    text = EXAMPLE.read_text(encoding="utf-8")
    raw = yaml.safe_load(TEXT)
    misspelt = dict(example(text.replace("CROSSTIE_MATCHERS", "CROSSTIE_MACTHERS")))
    found = variable_faults(raw, misspelt)
    assert found == [
        "variable CROSSTIE_MATCHERS is not in env.example",
        "env.example: nothing uses CROSSTIE_MACTHERS",
    ]
    other = dict(example(text.replace("CROSSTIE_READERS=1", "CROSSTIE_READERS=3")))
    assert variable_faults(raw, other) == [
        "variable CROSSTIE_READERS: the default is '1', env.example says '3'"
    ]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("", ""),
        ("set -eu", "set -eu\nif true; then"),
        ("/run/secrets/s3_secret_key)", "/run/secrets/s3_secret_ky)"),
    ],
)
def test_the_stores_entrypoint(tmp_path: Path, right: str, wrong: str):
    """shellcheck, and that it reads the secrets that the service has; the first case is the file as it is."""
    text = S3_ENTRYPOINT.read_text(encoding="utf-8")
    path = tmp_path / "s3-entrypoint.sh"
    path.write_text(text.replace(right, wrong) if right else text)
    linted = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), path], check=False, capture_output=True
    )
    secrets = set(yaml.safe_load(TEXT)["services"]["s3"]["secrets"])
    read = {
        word.split("/")[3].rstrip(")")
        for word in path.read_text().split()
        if word.startswith("/run/secrets/")
    }
    assert (linted.returncode == 0 and read == secrets and len(secrets) == 4) == (not right)


@pytest.mark.parametrize(
    ("shut", "well"),
    [
        (set(), True),
        ({"8333/healthz"}, False),
        ({"8888/buckets/products/?limit=1"}, False),
        ({"9333/dir/assign?collection=scenes"}, False),
    ],
)
def test_the_store_is_well_once_each_bucket_can_be_written(tmp_path: Path, shut: set[str], well: bool):
    """By a program in the place of wget, which knows the addresses that answer."""
    names = ("scenes", "products")
    opened = {"8333/healthz", *(f"8888/buckets/{name}/?limit=1" for name in names)}
    opened |= {f"9333/dir/assign?collection={name}" for name in names}
    (tmp_path / "opened").write_text("".join(f"http://127.0.0.1:{one}\n" for one in opened - shut))
    (tmp_path / "wget").write_text(f'#!/bin/sh\nexec grep -qxF -- "$4" {tmp_path}/opened\n')
    (tmp_path / "wget").chmod(0o755)
    done = subprocess.run(
        ["sh", S3_HEALTH, ",".join(names)], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False
    )
    assert (done.returncode == 0) is well
    assert (
        subprocess.run([Path(sys.executable).with_name("shellcheck"), S3_HEALTH], check=False).returncode == 0
    )


def test_the_readme_names_every_published_port_and_secret():
    page = README.read_text(encoding="utf-8")
    for port in PUBLISHED.values():
        assert f"127.0.0.1:{port}" in page
    for secret in yaml.safe_load(TEXT)["secrets"]:
        assert secret in page


def test_variables_are_put_in_as_compose_does():
    given = {"a": "${A}-${B:-b}", "l": ["${C-c}", "$$x", "${D:?is not set}"]}
    assert interpolated(given, {"A": "1", "B": "", "C": "", "D": "d"}) == {"a": "1-b", "l": ["", "$x", "d"]}
    with pytest.raises(ValueError, match="D is not set"):
        interpolated(given, {"A": "1"})


def test_who_only_shows_reaches_nothing_that_runs_code():
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    networks = {name: set(service["networks"]) for name, service in services.items()}
    scheduler = networks["dask-scheduler"]
    for shows in ("site", "grafana", "postgres"):
        assert not networks[shows] & scheduler, shows
        assert not networks[shows] & networks["prefect-worker"], shows
    assert networks["site"] & networks["s3"]
    assert networks["grafana"] & networks["prometheus"]
    assert networks["prometheus"] & networks["site"]
    assert networks["prefect-server"] & networks["postgres"]
    for watched in ("dask-scheduler", "dask-reader", "dask-matcher", "prefect-worker", "listener", "s3"):
        assert networks["prometheus"] & networks[watched], watched
