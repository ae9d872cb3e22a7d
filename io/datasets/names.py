"""Names of the public sets, their splits and their parts, as the command line offers them."""

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
    """How a set is split into parts."""

    PLACE = "place"
    PUBLISHED = "published"


class Part(StrEnum):
    """Which part of a set."""

    ALL = "all"
    TRAIN = "train"
    TEST = "test"
