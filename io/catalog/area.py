"""Read an area that a user drew: from a GeoJSON file to WKT in degrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from crosstie.errors import BadInputError


def read_area(path: str | Path) -> str:
    """Read the area of a GeoJSON file: the union of all its features, as WKT in degrees.

    Raises
    ------
    BadInputError
        The file cannot be read, is no GeoJSON, or holds no area.
    """
    import shapely  # not needed by commands that get no area
    from shapely.geometry import shape

    try:
        tree: Any = json.loads(Path(path).read_text("utf-8"))
    except OSError as problem:
        raise BadInputError(f"area {path}: cannot be read ({problem.strerror}); check the path") from None
    except ValueError:
        raise BadInputError(f"area {path}: is no JSON; draw it with geojson.io or QGIS") from None
    try:
        parts = [shape(geometry) for geometry in _geometries_of(tree)]
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as problem:
        raise BadInputError(
            f"area {path}: is no GeoJSON ({type(problem).__name__}: {problem}); give a Feature, a "
            "FeatureCollection or a geometry, in degrees"
        ) from None
    area = shapely.union_all([shapely.make_valid(part) for part in parts])
    if area.is_empty or not area.area:
        raise BadInputError(f"area {path}: holds no area; give at least one polygon, in degrees")
    wkt: str = shapely.force_2d(area).wkt
    return wkt


def _geometries_of(tree: Any) -> list[Any]:
    if tree["type"] == "FeatureCollection":
        return [feature["geometry"] for feature in tree["features"]]
    return [tree["geometry"] if tree["type"] == "Feature" else tree]
