"""Tables and pages give metres on the ground and true directions; the products keep those of the map."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from odc.geo.geobox import GeoBox

from crosstie.flows.runs.outcome import Outcome
from crosstie.flows.site.text import offset, rms_error
from crosstie.io.products.correction import correction_dict
from crosstie.io.products.summary import rows
from crosstie.types import Registration

MakeRegistration = Callable[..., Registration]

MERCATOR = GeoBox.from_bbox((1.30e6, 9.28e6, 1.32e6, 9.30e6), crs="EPSG:3857", resolution=10)
"""At 64 degrees north: a metre of the map is 0.442 m."""

TURNED = GeoBox.from_bbox((-10_000, 1_000_000, 10_000, 1_020_000), crs="EPSG:3413", resolution=10)
"""Beyond the pole from its central meridian: what the map has as up is south."""


def median(registration: Registration) -> tuple[float, float]:
    return registration.estimate.median_offset_m


def test_a_table_of_runs_gives_metres_on_the_ground(make_registration: MakeRegistration) -> None:
    registration = make_registration(grid=MERCATOR)
    said = correction_dict(registration)
    assert (said["offset_m"]["median_x"], said["offset_m"]["median_y"]) == median(registration)
    row = Outcome.of("a__b", said, products="file:///x", already_done=False).row()
    east, north = (float(part) for part in row["offset m (east, north)"].split(", "))
    assert (east, north) == pytest.approx([0.443 * value for value in median(registration)], abs=0.06)
    assert row["RMSE m"] == "10.6 -> 1.4"  # 24 and 3.25 m of the map


def test_a_product_in_a_prompt_says_true_directions(make_registration: MakeRegistration) -> None:
    registration = make_registration(grid=TURNED)
    x_m, y_m = median(registration)
    said = dict(rows(correction_dict(registration)))["offset"]
    east, north = (float(part.split(" m ")[0]) for part in said.split(", "))
    assert (east, north) == pytest.approx((-x_m, -y_m), rel=0.03)


def test_pages_say_the_same_from_the_index(make_registration: MakeRegistration) -> None:
    row = {
        "crs": "EPSG:3857",
        "bbox": {"xmin": 11.6, "ymin": 63.9, "xmax": 11.9, "ymax": 64.1},
        "offset_x_m": 100.0,
        "offset_y_m": -50.0,
        "rmse_before_m": 24.0,
        "rmse_after_m": None,
    }
    assert offset(row) == "44.0 m E, 21.9 m S"
    assert (rms_error(row, "rmse_before_m"), rms_error(row, "rmse_after_m")) == ("10.5 m", "–")
    assert offset(row | {"crs": None}) == "100.0 m E, 50.0 m S"


def test_products_of_old_say_their_map_s_own_metres(make_registration: MakeRegistration) -> None:
    said = correction_dict(make_registration(grid=MERCATOR))
    del said["ground"]
    assert Outcome.of("a__b", said, products="file:///x", already_done=False).row()["RMSE m"] == "24.0 -> 3.2"
