"""Who may look at the site: those with the token, or those on this machine."""

from __future__ import annotations

import pytest
from site_archive import Site

from crosstie.errors import SettingsError
from crosstie.flows.site.app import make_site_app
from crosstie.flows.site.guard import read_site_access
from crosstie.flows.site.watch import Watch
from crosstie.flows.web.access import Access
from crosstie.io.storage.address import is_loopback
from crosstie.io.storage.store import open_store

TOKEN = "t0ken-of-readers-0123456789"
VARIABLE = "CROSSTIE_SITE_TOKEN"


@pytest.fixture
def watch(tmp_path_factory: pytest.TempPathFactory) -> Watch:
    found = Watch(open_store(str(tmp_path_factory.mktemp("empty"))), every_s=60)
    found.look()
    return found


@pytest.fixture
def guarded(watch: Watch) -> Site:
    return Site(make_site_app(watch, Access(TOKEN.encode()), local=False), "https://site.example.org")


def test_without_the_token_nothing_of_the_archive_is_told(guarded: Site) -> None:
    run = f"/runs/S2__S1/{'a' * 16}"
    for address in (
        "/",
        "/failures",
        f"{run}/report.html",
        f"{run}/thumbnail.webp",
        "/style.css",
        "/nowhere",
    ):
        answer = guarded.get(address)
        assert answer.status_code == 401, address
        assert answer.headers["www-authenticate"].startswith("Basic ")  # so that a browser asks for it
        assert "file://" not in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Basic !"}, {"Authorization": TOKEN}, {"Authorization": "Bearer"},
        {"Authorization": "Bearer "}, {"Cookie": f"token={TOKEN}"},
    ],
)  # fmt: skip
def test_a_wrong_token_is_none_and_is_not_repeated(guarded: Site, headers: dict[str, str]) -> None:
    answer = guarded.get("/", headers=headers)
    assert answer.status_code == 401
    assert "wrong" not in answer.text.replace("the token is wrong", "")
    assert TOKEN not in answer.text


def test_the_token_opens_it_in_a_header_or_as_a_password(guarded: Site) -> None:
    for more in ({"headers": {"Authorization": f"Bearer {TOKEN}"}}, {"auth": ("anyone", TOKEN)}):
        answer = guarded.get("/", **more)
        assert answer.status_code == 200
        assert TOKEN not in answer.text


def test_figures_and_health_need_none(guarded: Site) -> None:
    assert "crosstie_archive_scan_seconds" in guarded.get("/metrics").text
    assert guarded.get("/healthz").status_code in {200, 503}
    for address in ("/metrics/", "//metrics", "/healthz/../", "/metrics%2F..%2Ffailures"):
        assert guarded.get(address).status_code == 401, address


def test_open_to_this_machine_it_answers_to_its_own_names_alone(watch: Watch) -> None:
    app = make_site_app(watch, None, local=True)
    for host in ("http://127.0.0.1:8091", "http://localhost", "http://[::1]:8091"):
        assert Site(app, host).get("/").status_code == 200, host
    for host in ("http://evil.example.org:8091", "http://127.0.0.1.evil.example.org", "http://10.0.0.1"):
        assert Site(app, host).get("/").status_code == 400, host
    behind_a_proxy = make_site_app(watch, None, local=False)
    assert Site(behind_a_proxy, "https://crosstie.example.org").get("/").status_code == 200


def test_without_a_token_only_this_machine_is_served_unless_told_otherwise() -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        assert is_loopback(host)
        assert read_site_access(VARIABLE, host, everyone=False, environment={}) is None
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org"):
        assert not is_loopback(host)
        with pytest.raises(SettingsError, match=r"--host .* CROSSTIE_SITE_TOKEN holds no token.*--open"):
            read_site_access(VARIABLE, host, everyone=False, environment={VARIABLE: " \n"})
        assert read_site_access(VARIABLE, host, everyone=True, environment={}) is None
    access = read_site_access(VARIABLE, "0.0.0.0", everyone=False, environment={VARIABLE: f"{TOKEN}\n"})
    assert access == Access(TOKEN.encode())
    assert TOKEN not in repr(access)
    with pytest.raises(SettingsError, match="leave out one") as caught:
        read_site_access(VARIABLE, "0.0.0.0", everyone=True, environment={VARIABLE: TOKEN})
    assert TOKEN not in str(caught.value)
