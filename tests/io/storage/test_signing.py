"""Addresses that want a signature are signed when they are read, and nowhere else."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from stac_site import stac_item

from crosstie.errors import UnreadableRasterError
from crosstie.io.catalog.search import find_scenes
from crosstie.io.products.vrt import corrected_vrt
from crosstie.io.raster import open_source
from crosstie.io.simulation.pairs import write_simulated_catalog
from crosstie.io.storage import signing
from crosstie.io.storage.signing import signed

TOKEN = "planted-secret-token"
BLOB = "https://sentinel2l2a01.blob.core.windows.net/sentinel2-l2/32/U/TCI.tif"


class Guarded(SimpleHTTPRequestHandler):
    """Gives files to those who sign: to others 403."""

    def do_GET(self) -> None:
        if f"sig={TOKEN}" not in self.path:
            self.send_error(403)
            return
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    write_simulated_catalog(tmp_path / "c", scenes=1, size_px=64)
    raster = next(path for path in (tmp_path / "c").rglob("*.tif"))
    (tmp_path / "served").mkdir()
    shutil.copy(raster, tmp_path / "served" / "s1_vh.tif")
    handler = partial(Guarded, directory=str(tmp_path / "served"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/s1_vh.tif"
    server.shutdown()
    server.server_close()


@pytest.mark.server
def test_a_scene_is_signed_when_it_is_opened_and_only_there(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "item.json"
    file.write_text(json.dumps(stac_item("x", assets={"vh": {"href": guarded}})))
    (scene,) = find_scenes(file)
    with pytest.raises(UnreadableRasterError):
        open_source(scene.hrefs, from_catalog=True)

    calls = []

    def sign(href: str) -> str:
        calls.append(href)
        return f"{href}?se=2026&sig={TOKEN}"

    monkeypatch.setitem(signing.SIGNERS, "127.0.0.1", sign)
    (scene,) = find_scenes(file)
    assert calls == []
    source = open_source(scene.hrefs, kind=scene.kind, from_catalog=True)
    assert calls
    assert set(calls) == {guarded}
    assert source.hrefs == scene.hrefs == (guarded,)
    vrt = corrected_vrt(source.hrefs, affine=(1, 0, 0, 0, 1, 0), grid_crs=source.crs)
    for made in (repr(scene), repr(source), pickle.dumps(source), vrt):
        assert TOKEN not in (made if isinstance(made, str) else made.decode("latin-1"))


def test_the_hosts_of_the_planetary_computer_are_signed_and_no_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        signing, "SIGNERS", {host: (lambda href: f"{href}?sig={TOKEN}") for host in signing.SIGNERS}
    )
    table = signing.SIGNERS
    assert signed(BLOB, table) == f"{BLOB}?sig={TOKEN}"
    for other in (
        BLOB.replace("https:", "http:"),
        f"{BLOB}?st=1&sig=mine",
        "https://sentinel2l2a01.blob.core.windows.net.evil.example/x.tif",
        "https://example.com/?u=sentinel2l2a01.blob.core.windows.net",
        "s3://sentinel2l2a01.blob.core.windows.net/x.tif",
        "/a/local/file.tif",
    ):
        assert signed(other, table) == other


def test_without_the_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "planetary_computer", None)
    with pytest.raises(UnreadableRasterError, match=r"pip install planetary-computer$"):
        signed(BLOB)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pydantic.*")
@pytest.mark.filterwarnings("ignore:Support for class-based `config`")
def test_the_package_signs_with_a_token_of_its_service(monkeypatch: pytest.MonkeyPatch):
    sas = pytest.importorskip("planetary_computer.sas")
    token = sas.SASToken(**{"msft:expiry": "2999-01-01T00:00:00Z", "token": f"se=2999&sig={TOKEN}"})
    url = f"{sas.Settings.get().sas_url}/sentinel2l2a01/sentinel2-l2"
    monkeypatch.setitem(sas.TOKEN_CACHE, url, token)
    assert signed(BLOB) == f"{BLOB}?se=2999&sig={TOKEN}"
