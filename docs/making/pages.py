"""Which files of the repository are pages of the site, and where the links between them then lead."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from reference import PARTS

ROOT = Path(__file__).resolve().parents[2]

ALONE = {
    "matcher/shipped/MODEL_CARD.md": "reference/model-card.md",
    "README.md": "about.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
"""Pages outside docs/ and deploy/: file of the repository -> page of the site."""

LANGUAGES = {
    ".yaml": "yaml",
    ".yml": "yaml",
    ".toml": "toml",
    ".json": "json",
    ".sh": "bash",
    ".py": "python",
}
"""How the text of a file that a page links to is coloured."""

MADE = re.compile(r"^<!-- made: ([a-z-]+) -->$", re.MULTILINE)
"""Where a page receives what the program itself says."""

FENCE = re.compile(r"^(`{3,}|~{3,})")
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def gather(target: Path) -> None:
    """Write every page, picture and linked file of the site below `target`."""
    pages = dict(_pages())
    files: dict[str, str] = {}
    for page, where in pages.items():
        text = MADE.sub(lambda found: PARTS[found[1]](), (ROOT / page).read_text(encoding="utf-8"))
        _write(target / where, _linked(text, page, where, pages, files))
    for picture in (
        path for ending in ("png", "svg", "css") for path in (ROOT / "docs").rglob(f"*.{ending}")
    ):
        place = target / picture.relative_to(ROOT / "docs")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture.read_bytes())
    for folder in [file for file in files if (ROOT / file).is_dir()]:
        files |= {file: f"files/{file}.md" for file in _below(folder)}
    for file, where in files.items():
        _write(target / where, _shown(file))


def _pages() -> Iterator[tuple[str, str]]:
    """Pages as files of the repository, and where each stands in the site."""
    for path in sorted((ROOT / "docs").rglob("*.md")):
        yield path.relative_to(ROOT).as_posix(), path.relative_to(ROOT / "docs").as_posix()
    for path in sorted((ROOT / "deploy").rglob("*.md")):
        page = path.relative_to(ROOT).as_posix()
        yield page, page.removesuffix("README.md") + "index.md" if path.name == "README.md" else page
    yield from ALONE.items()


def _linked(text: str, page: str, where: str, pages: dict[str, str], files: dict[str, str]) -> str:
    """Turn links between files of the repository into links between pages of the site.

    A link to a file or a folder that is no page leads to a page that shows it, and is noted in `files`. One
    that leads nowhere is left: the strict build names it.
    """

    def moved(found: re.Match[str]) -> str:
        address, _, anchor = found[1].partition("#")
        if not address or ":" in address:
            return found[1]
        path = os.path.normpath(PurePosixPath(page).parent / address)
        if f"{path}/README.md" in pages:
            path = f"{path}/README.md"
        if path in pages:
            new = pages[path]
        elif path.startswith("docs/"):
            new = path.removeprefix("docs/")  # pictures
        elif (ROOT / path).exists():
            new = files[path] = f"files/{path}.md"
        else:
            return found[1]
        return os.path.relpath(new, PurePosixPath(where).parent) + (f"#{anchor}" if anchor else "")

    lines, fence = [], ""
    for line in text.splitlines():
        mark = FENCE.match(line)
        if mark:
            fence = "" if line.rstrip() == fence else fence or mark[1]
        lines.append(line if fence or mark else LINK.sub(moved, line))
    return "\n".join(lines) + "\n"


def _below(folder: str) -> list[str]:
    """Files of a folder, as files of the repository."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file())


def _shown(file: str) -> str:
    """A page that shows a file as it is, or what a folder holds."""
    if (ROOT / file).is_dir():
        above = PurePosixPath(file).parent
        lines = [f"- [{path}]({PurePosixPath(path).relative_to(above)}.md)" for path in _below(file)]
        return "\n".join([f"# {file}/", "", *lines]) + "\n"
    text = (ROOT / file).read_text(encoding="utf-8")
    language = LANGUAGES.get(Path(file).suffix, "dockerfile" if Path(file).name == "Dockerfile" else "text")
    return f"# {file}\n\n````{language}\n{text.rstrip()}\n````\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
