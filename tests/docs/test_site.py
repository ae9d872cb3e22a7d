"""The site builds without a warning, every link leads somewhere, and all that the program has is said."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import griffe
import pytest
import typer
from docs_blocks import ROOT

import crosstie
from crosstie.cli import app
from crosstie.config import Settings, each_setting
from crosstie.flows.runs import failure_codes as trouble
from crosstie.train_settings import TrainSettings
from crosstie.types import Reason

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
"""Tags that fetch something when the page is opened."""


@dataclass
class Page(HTMLParser):
    """Addresses, anchors and words of a page."""

    leads: list[str] = field(default_factory=list)
    fetches: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.leads.append(given["href"])
        if tag in LOADS and LOADS[tag] in given and given.get("rel") not in {"canonical", "next", "prev"}:
            self.fetches.append(given[LOADS[tag]])

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the build."""
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "making"), str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    return folder


@pytest.fixture(scope="module")
def site(built: Path) -> dict[Path, Page]:
    """Every page that was built."""
    pages = {}
    for path in sorted((built / "site").rglob("*.html")):
        pages[path] = Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    return pages


def dead_links(site: dict[Path, Page]) -> list[str]:
    """Addresses that lead to no file, or to no place in a page."""
    dead = []
    for path, page in site.items():
        for href in [*page.leads, *page.fetches]:
            address, anchor = urldefrag(href)
            if (
                ":" in address or path.name == "404.html"
            ):  # that one is shown anywhere: its links are absolute
                continue
            target = (path.parent / unquote(address)).resolve() if address else path
            target = target / "index.html" if target.is_dir() else target
            anchors = site[target].anchors if target in site else set()
            if not target.is_file() or (anchor and unquote(anchor) not in anchors):
                dead.append(f"{path}: {href}")
    return dead


def test_every_link_leads_to_a_page_and_every_anchor_to_a_place_in_it(site: dict[Path, Page]):
    assert dead_links(site) == []
    assert sum(len(page.leads) for page in site.values()) > 500


def test_a_dead_link_is_seen(tmp_path: Path):
    path = tmp_path / "index.html"
    path.write_text('<a id="here" href="#here"></a><a href="#there"></a><a href="x/"></a><img src="y.png">')
    page = Page()
    page.feed(path.read_text())
    assert [line.split(": ")[1] for line in dead_links({path: page})] == ["#there", "x/", "y.png"]


def test_nothing_is_fetched_from_elsewhere(site: dict[Path, Page]):
    for path, page in site.items():
        assert not [
            address for address in page.fetches if ":" in address and not address.startswith("data:")
        ], path


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "zensical.toml").write_text('[project]\nsite_name = "x"\ndocs_dir = "pages"\n')
    build = [str(Path(sys.executable).with_name("zensical")), "build", "--strict"]
    for line, code in (("[here](#a-page)", 0), ("[there](nowhere.md)", 1), ("[there](#nowhere)", 1)):
        (tmp_path / "pages" / "index.md").write_text(f"# A page\n\n{line}\n")
        assert subprocess.run(build, cwd=tmp_path, capture_output=True).returncode == code, line


def test_every_page_is_in_the_navigation():
    named = set()

    def walk_nav(entry: object) -> None:
        for part in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
            walk_nav(part)
        if isinstance(entry, str):
            named.add(entry)

    walk_nav(tomllib.loads((ROOT / "docs" / "zensical.toml").read_text())["project"]["nav"])
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    pages |= {
        path.relative_to(ROOT).as_posix().replace("README.md", "index.md")
        for path in (ROOT / "deploy").rglob("*.md")
    }
    assert pages <= named


def text_of(site: dict[Path, Page], name: str) -> str:
    return next(page.text for path, page in site.items() if path.parent.as_posix().endswith(f"site/{name}"))


def test_the_reference_has_every_command_and_option(site: dict[Path, Page]):
    text = text_of(site, "reference/commands")
    for name, command in typer.main.get_command(app).commands.items():
        assert f"crosstie {name}" in text
        for parameter in command.params:
            assert all(option in text for option in parameter.opts), parameter.name


@pytest.mark.parametrize(
    ("page", "model"), [("reference/settings", Settings()), ("reference/train-settings", TrainSettings())]
)
def test_the_reference_has_every_setting(site: dict[Path, Page], page: str, model: Settings | TrainSettings):
    text = text_of(site, page)
    for setting in each_setting(model):
        assert setting.is_group or setting.name in text


def test_every_code_is_explained_and_has_an_advice(site: dict[Path, Page]):
    source = ast.parse(Path(trouble.__file__).read_text())
    kinds = next(f for f in ast.walk(source) if isinstance(f, ast.FunctionDef) and f.name == "_kind_of")
    texts = {
        node.value
        for part in ast.walk(kinds)
        if isinstance(part, ast.Return)
        for node in ast.walk(part)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    failures = texts | {trouble.BUG}
    assert len(failures) > 8
    codes, advice = text_of(site, "reference/codes"), text_of(site, "how-to/reading-results")
    night = text_of(site, "how-to/failed-night")
    assert [reason for reason in Reason if reason not in codes or reason.sentence not in codes] == []
    assert [reason for reason in Reason if reason not in advice] == []
    assert [code for code in failures if code not in codes or code not in night] == []


def test_the_drawings_are_those_that_the_script_makes(tmp_path: Path):
    subprocess.run([sys.executable, str(ROOT / "docs" / "making" / "figures.py"), str(tmp_path)], check=True)
    made = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert made == {path.name: path.read_text() for path in (ROOT / "docs" / "figures").glob("*.svg")}
    assert made


def names_on_the_python_page() -> list[str]:
    text = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    return re.findall(r"^::: (\S+)$", text, re.M)


def test_the_python_page_names_all_that_the_package_offers_and_no_inner_module():
    names = names_on_the_python_page()
    public = {f"crosstie.{name}" for name in crosstie.__all__}
    assert {name for name in names if name not in public and not name.startswith("crosstie.types.")} == set()
    assert public - {*names, "crosstie.types", "crosstie.Settings"} == set()


def test_every_docstring_on_the_python_page_has_types_and_descriptions():
    package = griffe.load("crosstie", search_paths=[ROOT / "src"])
    described = 0
    for name in names_on_the_python_page():
        entry = package[name.removeprefix("crosstie.")]
        members = [entry, *entry.members.values()] if entry.is_class else [entry]
        for docstring in (member.docstring for member in members if member.docstring is not None):
            for section in docstring.parse("numpy"):
                items = section.value if isinstance(section.value, list) else []
                for item in items:
                    assert item.annotation, f"{name}: {item}"
                    assert item.description, f"{name}: {item}"
                    # A description behind the colon would be taken for a type.
                    assert len(str(item.annotation)) < 40, f"{name}: {item.annotation}"
                described += len(items)
    assert described >= 15
