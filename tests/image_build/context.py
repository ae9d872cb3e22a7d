"""What a build of the image gets to see of a checkout."""

from __future__ import annotations

from pathlib import Path

from docker.utils.build import PatternMatcher, exclude_paths

ROOT = Path(__file__).resolve().parent.parent.parent

FOLDER = ROOT / "deploy" / "docker"

DOCKERFILE = FOLDER / "Dockerfile"

IGNORE = ROOT / ".dockerignore"


def patterns(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def sent(text: str, root: Path = ROOT) -> set[str]:
    """Paths that a .dockerignore of this text lets in, relative to `root`; links are not followed."""
    # Docker itself adds its own two files, whatever is asked.
    return set(exclude_paths(str(root), patterns(text), dockerfile=".dockerignore")) - {".dockerignore"}


def left_out(text: str, path: str) -> bool:
    """Whether a .dockerignore of this text leaves out a path, whether or not it is there."""
    return bool(PatternMatcher(patterns(text)).matches(path))
