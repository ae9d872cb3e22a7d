"""The image's entrypoint and health check: secrets come from files; what is amiss is said without them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from image_build import context

ENTRYPOINT = context.FOLDER / "entrypoint.sh"
HEALTHCHECK = context.FOLDER / "healthcheck"
SHOW = "import json, os; print(json.dumps(dict(os.environ)))"
SECRET = "Xq$7 `id` \"quoted\" 'twice' \\ ü"


def run(variables: Mapping[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    path = {"PATH": "/usr/bin:/bin", "PYTHONUTF8": "1"}
    return subprocess.run(
        ["/bin/sh", ENTRYPOINT, *command], env=path | dict(variables), capture_output=True, text=True
    )


def shown(variables: Mapping[str, str]) -> dict[str, str]:
    said = run(variables, sys.executable, "-c", SHOW)
    assert (said.returncode, said.stderr) == (0, "")
    seen: dict[str, str] = json.loads(said.stdout)
    return seen


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "CROSSTIE_LISTEN_SIGNATURE",
        "CROSSTIE_LISTEN_TOKEN",
        "CROSSTIE_SITE_TOKEN",
        "PREFECT_API_AUTH_STRING",
        "PREFECT_API_KEY",
        "PREFECT_SERVER_API_AUTH_STRING",
        "PREFECT_SERVER_DATABASE_PASSWORD",
    ],
)
def test_each_secret_is_taken_letter_by_letter(secret: Path, name: str) -> None:
    seen = shown({f"{name}_FILE": str(secret)})
    assert seen[name] == SECRET
    assert f"{name}_FILE" not in seen


def test_nothing_else_is_changed(secret: Path) -> None:
    given = {"AWS_SESSION_TOKEN": "plain", "SSL_CERT_FILE": str(secret), "AWS_ACCESS_KEY_ID_FILE": ""}
    seen = shown(given)
    assert given.items() <= seen.items()
    assert "AWS_ACCESS_KEY_ID" not in seen
    assert "SSL_CERT" not in seen
    # nothing of the script's own comes along
    assert not {"name", "file", "value", "given", "known", "left"} & seen.keys()


def test_the_command_takes_the_place_of_the_script() -> None:
    said = run({}, "/bin/sh", "-c", "echo $$; exit 7")
    with subprocess.Popen(
        ["/bin/sh", ENTRYPOINT, "/bin/sh", "-c", "echo $$"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid
    assert said.returncode == 7


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "there is no file"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("first-half\nsecond-half\n", "more than one line"),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path: Path, content: str | None, why: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
    said = run({"CROSSTIE_LISTEN_TOKEN_FILE": str(path)}, "echo", "started")
    assert (said.returncode, said.stdout) == (2, "")
    assert "CROSSTIE_LISTEN_TOKEN_FILE" in said.stderr
    assert why in said.stderr
    assert "half" not in said.stderr


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    said = run({"AWS_ACCESS_KEY_ID_FILE": str(tmp_path)}, "echo", "started")
    assert (said.returncode, said.stdout) == (2, "")
    assert "is a folder" in said.stderr


def test_two_sources_of_one_secret_are_refused(secret: Path) -> None:
    said = run({"AWS_ACCESS_KEY_ID": "other", "AWS_ACCESS_KEY_ID_FILE": str(secret)}, "echo", "started")
    assert (said.returncode, said.stdout) == (2, "")
    assert "both AWS_ACCESS_KEY_ID and AWS_ACCESS_KEY_ID_FILE" in said.stderr
    assert "other" not in said.stderr


def test_a_misspelt_name_is_told() -> None:
    said = run({"AWS_SECRET_ACCES_KEY_FILE": "/run/secrets/s3_secret_key"}, "echo", "started")
    assert (said.returncode, said.stdout) == (0, "started\n")
    assert "AWS_SECRET_ACCES_KEY is none of the secrets known here" in said.stderr


def test_a_command_is_needed() -> None:
    said = run({})
    assert said.returncode == 2
    assert "no command" in said.stderr


@pytest.fixture
def service() -> Iterator[str]:
    """A server whose /health answers with success, and nothing else does."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def asked(*urls: str, **variables: str) -> tuple[int, str]:
    said = subprocess.run(
        [sys.executable, "-I", "-S", HEALTHCHECK, *urls], env=variables, capture_output=True, text=True
    )
    return said.returncode, said.stdout


def test_health_is_that_of_every_url(service: str) -> None:
    assert asked(f"{service}/health") == (0, "")
    assert asked(HEALTHCHECK_URL=f"{service}/health {service}/health") == (0, "")
    code, text = asked(f"{service}/health", f"{service}/ready")
    assert code == 1
    assert "/ready: answers 503" in text
    # what is asked for by hand goes before the environment
    assert asked(f"{service}/health", HEALTHCHECK_URL=f"{service}/ready") == (0, "")


def test_no_proxy_is_asked_for_health(service: str) -> None:
    assert asked(f"{service}/health", http_proxy="http://127.0.0.1:9") == (0, "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/health", "htp://127.0.0.1/health", "127.0.0.1:9"])
def test_what_cannot_be_asked_is_ill(url: str) -> None:
    code, text = asked(url)
    assert code == 1
    assert url in text
    assert "Traceback" not in text


def test_nothing_to_ask_is_said() -> None:
    code, text = asked()
    assert code == 0
    assert "HEALTHCHECK_URL" in text
