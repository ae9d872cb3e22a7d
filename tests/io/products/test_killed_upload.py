"""A worker that dies at the aligned pixels leaves nothing that a reader sees; the next run completes it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rasterio
from odc.geo.geobox import GeoBox
from product_with_truth import AFFINE, GROUND, SHAPE, SHIFT_PX, UTM, write_waves
from s3_server import S3Server, s3_server

import crosstie
from crosstie.errors import StoreError, UnreadableRasterError
from crosstie.io.archive.listing import list_archive
from crosstie.io.products.aligned import ALIGNED
from crosstie.io.products.write import AlignedRequest, write_products
from crosstie.io.storage.root_layout import ProductKey
from crosstie.io.storage.store import open_store
from crosstie.types import Registration

MakeRegistration = Callable[..., Registration]

DIES = """
import os, pickle, sys
from crosstie.io.products.write import write_products
from crosstie.io.storage.store import Store, open_store

put_file = Store.put_file

def put_and_die(store, key, path):
    put_file(store, key, path)
    os._exit(9)

Store.put_file = put_and_die
registration, aligned, root = pickle.load(open(sys.argv[1], "rb"))
write_products(open_store(root), registration, thumbnails=None, aligned=aligned)
"""
"""Killed between the pixels and the commit: nothing of Python is cleaned up."""


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    with s3_server("products") as server:
        yield server


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.server)])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "file":
        return str(tmp_path / "products")
    for name, value in request.getfixturevalue("s3").environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://products/{tmp_path.name}"


def test_a_killed_upload_is_not_seen_and_the_next_run_completes_it(
    root: str, tmp_path: Path, make_registration: MakeRegistration
) -> None:
    import pickle

    grid = GeoBox(SHAPE, GROUND, UTM)
    secondary = write_waves(tmp_path / "s1.tif", shift_px=SHIFT_PX)
    registration = make_registration(affine=AFFINE, grid=grid, secondary_hrefs=(str(secondary),))
    aligned = AlignedRequest(grid)
    (tmp_path / "work.pickle").write_bytes(pickle.dumps((registration, aligned, root)))
    died = subprocess.run(
        [sys.executable, "-c", DIES, str(tmp_path / "work.pickle")], env=dict(os.environ), check=False
    )
    assert died.returncode == 9

    store, key = open_store(root), ProductKey(registration.pair_key, registration.run_key)
    assert any(name.endswith(f"/{ALIGNED}") for name in store.list(key.prefix))  # the bytes are there
    assert list_archive(store).committed == set()
    with pytest.raises(StoreError, match="no committed product"):
        crosstie.open(store.url_of(key.prefix))

    url = write_products(store, registration, thumbnails=None, aligned=aligned)
    assert list_archive(store).committed == {key}
    listed = json.loads(store.get(key.commit) or b"")["files"]
    for name, said in listed.items():
        body = store.get(key.file(name)) or b""
        assert said == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    assert ALIGNED in listed
    assert {name.rpartition("/")[2] for name in store.list(key.prefix)} == {*listed, "_COMMIT"}
    product = crosstie.open(url)
    assert product.item["assets"]["aligned"]["proj:shape"] == list(SHAPE)
    if root.startswith("s3:"):  # who can write there must not choose which file of this machine is read
        with pytest.raises(UnreadableRasterError, match="name the raster yourself"):
            product.apply(like=grid)
    assert product.apply(secondary, like=grid).shape == (1, *SHAPE)
    with rasterio.MemoryFile(store.get(key.file(ALIGNED))) as file, file.open() as raster:
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
