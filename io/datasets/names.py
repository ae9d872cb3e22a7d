"""Names of the public sets, of their parts and of the ways to split them; the command line offers them."""

from __future__ import annotations

from enum import StrEnum


class Dataset(StrEnum):
    """Sets with loaders."""

    SEN12 = "sen12"
    QXS = "qxs"
    SCENES = "scenes"
    OMBRIA = "ombria"
    SEBAST144 = "sebast144"
    SIH1733 = "sih1733"


class Split(StrEnum):
    """How a set is parted."""

    PLACE = "place"
    PUBLISHED = "published"


class Part(StrEnum):
    """Which part of a set."""

    ALL = "all"
    TRAIN = "train"
    TEST = "test"
