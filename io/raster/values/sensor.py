"""What formed a raster, and which of its bands are matched, told from names, counts and a few values."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from crosstie.types import Kind

if TYPE_CHECKING:
    from crosstie.types import FloatArray

SAR_TOKENS = frozenset(
    [
        "s1",
        "s1a",
        "s1b",
        "s1c",
        "s1d",
        "sar",
        "grd",
        "grdh",
        "rtc",
        "sigma0",
        "gamma0",
        "beta0",
        "backscatter",
        "radar",
        "vv",
        "vh",
        "hh",
        "hv",
    ]
)
OPTICAL_TOKENS = frozenset(["s2", "s2a", "s2b", "s2c", "s2d", "l1c", "l2a", "tci", "optical"])

COLOUR_TOKENS = frozenset(["visual", "rgb", "red", "nir", "b8a"]) | frozenset(
    f"b{number:{form}}" for number in range(1, 13) for form in ("d", "02d")
)
"""Words of how an image is drawn, or of its bands: of an optical one, where no word names a sensor. SAR is
drawn as RGB, too (VV, VH and their ratio)."""

RED, GREEN, BLUE = ({"red", "b4", "b04"}, {"green", "b3", "b03"}, {"blue", "b2", "b02"})

POLARISATIONS = frozenset({"vv", "vh", "hh", "hv"})

OPTICAL_LABELS = RED | GREEN | BLUE | frozenset({"nir", "swir", "b8", "b08", "b8a", "b11", "b12"})
"""Labels of bands of an optical image."""

BESIDE = frozenset(
    {
        "mask",
        "angle",
        "incidence",
        "lia",
        "shadow",
        "layover",
        "coherence",
        "coh",
        "phase",
        "noise",
        "nesz",
    }
)
"""Words of what is written beside a polarisation, and may be named after it."""

PARTS_OF_COMPLEX = frozenset({"i", "q", "real", "imag", "imaginary"})
"""Words of the two parts of a complex value: neither is an image."""

NO_ECHO = BESIDE | frozenset(
    {
        "area",
        "dem",
        "elevation",
        "height",
        "quality",
        "qa",
        "scl",
        "cloud",
        "classification",
        "ratio",
        "valid",
        "looks",
        "simulated",
    }
)
"""Words of bands that are no echo, where they name no polarisation."""

BYTE_SCALE = 1 / 255
"""Of 8-bit true colour; clipped, so that 1 stands for a reflectance of about 0.35 and more."""

PER_CENT, PER_CENT_SCALE = 200.0, 0.01
"""Reflectance in per cent ends here, glints included; larger numbers are ten-thousandths."""

DB_SHARE = 0.01
"""Power and amplitude are never negative; dB mostly are. The share forgives stray ringing."""


_WRITTEN_TOGETHER = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[0-9])(?=(?:VV|VH|HH|HV)(?![A-Za-z]))")


_SENTINEL = re.compile(r"sentinel[-_ ]?([12][a-d]?)(?![a-z0-9])")


def tokens(name: str) -> list[str]:
    """Words of a file name or of a band's description, lower case: `S1_VH-1.tif` -> s1, vh, 1, tif.

    `Sentinel-1A` is written s1a.
    """
    return [word for word in re.split(r"[^a-z0-9]+", _SENTINEL.sub(r"s\1", name.lower())) if word]


def _words_of_radar(label: str) -> set[str]:
    """Words of a label as SAR software writes them, together too: `localIncidenceAngle`, `Sigma0VV`."""
    return {*tokens(label), *tokens(_WRITTEN_TOGETHER.sub(" ", label))}


def find_kind(
    *, names: Sequence[str], descriptions: Sequence[str], count: int, sample: FloatArray | None
) -> Kind | None:
    """Tell SAR from optical, strongest evidence first; None where nothing tells.

    Parameters
    ----------
    names : Sequence[str]
        File names, without folder.
    descriptions : Sequence[str]
        Of the bands, empty where unset.
    count : int
        Bands in all, without alpha.
    sample : FloatArray or None
        Some valid values where they are floating point, else None.
    """
    echoes, colours = labelled(descriptions)
    if echoes != colours:
        return Kind.SAR if echoes else Kind.OPTICAL
    words = {word for name in names for word in tokens(name)}
    said = {kind for kind, known in ((Kind.SAR, SAR_TOKENS), (Kind.OPTICAL, OPTICAL_TOKENS)) if words & known}
    if len(said) == 1:
        return said.pop()  # VV, VH and their ratio are three bands too
    if not said and words & COLOUR_TOKENS:
        return Kind.OPTICAL
    if count >= 3 and said:  # `s1_on_s2`: a count of bands does not outweigh what the name says
        return None
    if count >= 3:
        return Kind.OPTICAL
    if sample is not None and are_db(sample):
        return Kind.SAR
    return Kind.SAR if count == 2 else None


def labelled(descriptions: Sequence[str]) -> tuple[bool, bool]:
    """Say whether labels of bands name a polarisation, and whether they name a colour."""
    echoes = {word for text in descriptions for word in _words_of_radar(text)}
    words = {word for text in descriptions for word in tokens(text)}
    return bool(POLARISATIONS & echoes), bool(OPTICAL_LABELS & words)


def are_complex_parts(labels: Sequence[str]) -> bool:
    """Say whether the labels of bands name the real and imaginary parts of an echo, and no detected image."""
    words = [set(tokens(text)) for text in labels]
    polarised = [said for said in words if POLARISATIONS & said]
    parts = [said for said in polarised if said & PARTS_OF_COMPLEX]
    return bool(parts) and len(parts) == len(polarised)


def are_db(sample: FloatArray) -> bool:
    """Say whether SAR values are dB already: more than `DB_SHARE` of them are negative."""
    finite = sample[np.isfinite(sample)]
    return bool(finite.size) and float(np.mean(finite < 0)) > DB_SHARE


def reflectance_scale(dtype: str, sample: FloatArray | None, *, declared: bool = False) -> float:
    """Find the factor that brings optical values to about 0..1: by data type and, for floats, some values.

    Floats may be reflectance, per cent or ten-thousandths of it, or bytes of a picture.

    `declared`: the file says how its numbers become a unit, and `sample` is in that unit, whatever the type.
    """
    if dtype == "uint8" and not declared:
        return BYTE_SCALE
    if declared or np.issubdtype(np.dtype(dtype), np.floating):
        finite = sample[np.isfinite(sample)] if sample is not None else np.zeros(0)
        # Glints over 2 exist; a hundredth of the pixels above it is no reflectance.
        high = float(np.percentile(finite, 99)) if finite.size else 0.0
        if high <= 2:
            return 1.0
        if not declared and finite.max() <= 255 and (finite == np.rint(finite)).all():
            return BYTE_SCALE
        return PER_CENT_SCALE if high <= PER_CENT else 1e-4
    return 1e-4


def optical_bands(labels: Sequence[str], colours: Sequence[str]) -> tuple[int, ...]:
    """Choose among the bands of one optical file, positions from 0: red, green, blue where there are such.

    Parameters
    ----------
    labels : Sequence[str]
        Description of each band, empty where unset.
    colours : Sequence[str]
        What each band shows (`red`, `gray`, ...), as the file says.
    """
    count = len(labels)
    for texts in (colours, labels):
        if (named := _red_green_blue(texts)) is not None:
            return named
    if count >= 12:
        return (3, 2, 1)  # Sentinel-2 order B1, B2, B3, B4, ...
    return (0, 1, 2) if count >= 3 else (0,)


def optical_files(names: Sequence[str]) -> tuple[int, ...]:
    """Choose among optical files of one band each, from 0: red, green, blue, or the first of them."""
    if (named := _red_green_blue(names)) is not None:
        return named
    for words in (RED, GREEN, BLUE):
        for position, name in enumerate(names):
            if words & set(tokens(name)):
                return (position,)
    return (0,)


def sar_bands(labels: Sequence[str], bare: Collection[int] = ()) -> tuple[int, ...]:
    """Choose the polarisations, positions from 0: those labelled, else the first two that are echoes.

    Parameters
    ----------
    labels : Sequence[str]
        Description of each band, empty where unset; or names of files of one band each.
    bare : Collection[int], optional
        Positions of bands that hold nothing or zeros only: not chosen beside one that holds an image.
    """
    words = [_words_of_radar(text) for text in labels]
    # a ratio names two polarisations
    aside = BESIDE | PARTS_OF_COMPLEX
    named = [n for n, said in enumerate(words) if len(POLARISATIONS & said) == 1 and not said & aside]
    echoes = named or [n for n, said in enumerate(words) if not said & NO_ECHO] or list(range(len(labels)))
    return tuple([n for n in echoes if n not in bare][:2] or echoes[:2])


def _red_green_blue(texts: Sequence[str]) -> tuple[int, ...] | None:
    found = []
    for words in (RED, GREEN, BLUE):
        hits = [position for position, text in enumerate(texts) if words & set(tokens(text))]
        if not hits:
            return None
        found.append(hits[0])
    return tuple(found)
