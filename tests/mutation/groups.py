"""What is mutated, and which tests have to notice it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Group:
    """Modules and their tests."""

    name: str
    modules: tuple[str, ...]
    """Files, or patterns of files, below the root of the checkout."""
    tests: tuple[str, ...]

    def files(self, root: Path) -> list[Path]:
        """Modules of the group, each one there."""
        found = [path for pattern in self.modules for path in sorted(root.glob(pattern))]
        if missing := [pattern for pattern in self.modules if not any(root.glob(pattern))]:
            raise SystemExit(f"{self.name}: no file is {missing[0]}; mend tests/mutation/groups.py")
        return [path for path in found if path.name != "__init__.py"]


ESTIMATION = "src/crosstie/estimation"

GROUPS = (
    Group(
        "a pair's correction",
        tuple(
            f"{ESTIMATION}/{name}.py"
            for name in (
                "correlation",
                "fit",
                "ladder",
                "model_error",
                "one_thread",
                "pair_offset",
                "select",
                "verdict",
            )
        ),
        (
            "tests/estimation/test_estimation.py",
            "tests/estimation/test_estimation_parts.py",
            "tests/estimation/test_small_scenes.py",
            "tests/estimation/test_correlation.py",
            "tests/estimation/test_one_thread.py",
        ),
    ),
    Group("its displacement field", (f"{ESTIMATION}/field/*.py",), ("tests/estimation/test_field.py",)),
    Group(
        "the adjustment",
        (f"{ESTIMATION}/adjustment/*.py",),
        ("tests/estimation/test_adjustment.py", "tests/estimation/test_scene_affines.py"),
    ),
    Group(
        "series of an archive",
        (f"{ESTIMATION}/change_points.py", f"{ESTIMATION}/systematic.py"),
        ("tests/estimation/test_change_points.py", "tests/estimation/test_systematic.py"),
    ),
    Group(
        "fields of a track",
        (f"{ESTIMATION}/static_field.py", f"{ESTIMATION}/track_field.py"),
        ("tests/estimation/test_static_field.py", "tests/flows/archive/test_track_fields.py"),
    ),
    Group(
        "the commit protocol",
        ("io/storage/commit.py", "io/storage/publication.py", "io/archive/claims.py"),
        (
            "tests/io/storage/test_publication.py",
            "tests/io/archive/test_claims.py",
            "tests/io/archive/test_verify.py",
        ),
    ),
)
