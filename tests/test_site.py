"""The documentation site is built as `tox -e docs` builds it; every component has its page and every link an end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import generate
import pytest

import amb
import amb.testing
from amb.plugin.manager import Manager

pytest.importorskip("sphinx", reason="the site needs the dependency group docs: pip install --group docs")
pytest.importorskip("furo", reason="the site needs the dependency group docs: pip install --group docs")
from bs4 import BeautifulSoup  # furo brings it

ROOT = Path(__file__).parents[1]


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def build(source: Path, html: Path) -> subprocess.CompletedProcess[str]:
    options = ["-W", "--keep-going", "-n", "-q", "-c", str(ROOT / "docs")]
    return python("-m", "sphinx", *options, str(source), str(html))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "source"
    done = python(str(ROOT / "docs" / "generate.py"), str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def site(source: Path) -> Path:
    done = build(source, source.parent / "html")
    assert (done.returncode, done.stderr) == (0, "")
    return source.parent / "html"


def soup(page: Path) -> BeautifulSoup:
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")


def test_every_component_has_a_page_with_its_parameters_and_presets(site: Path) -> None:
    registry = Manager().registry
    for kind in (*registry.kinds.values(), registry.edits):
        for name, cls in kind.classes.items():
            page = soup(site / "reference" / kind.listing / f"{name}.html").find("article")
            terms = {term.get_text() for term in page.find_all("dt")}
            assert {*cls.model_fields, *cls.presets} <= terms
            words = " ".join(page.get_text().split())
            assert len(words) > 100
            assert ":" not in page.get_text().splitlines(), "markup that was not understood"


def test_every_command_and_option_is_there(site: Path) -> None:
    from amb.cli import COMMANDS, LazyGroup, cli

    options = {each["id"] for each in soup(site / "reference" / "commands.html").find_all(id=True)}
    for name in COMMANDS:
        command = LazyGroup.get_command(cli, None, name)
        below = {f"{name}-{each}": found for each, found in getattr(command, "commands", {}).items()}
        for path, each in {name: command, **below}.items():
            flags = [flag for param in each.params for flag in param.opts if flag.startswith("--")]
            assert {f"cmdoption-amb-{path}{flag[1:]}" for flag in flags} <= options


def test_every_public_name_is_there_with_its_signature(site: Path) -> None:
    ids = {
        each["id"]: each.get_text()
        for page in site.glob("reference/python/*.html")
        for each in soup(page).find_all(id=True)
    }
    shown = [*(f"amb.{name}" for name in amb.__all__), *(f"amb.testing.{name}" for name in amb.testing.__all__)]
    assert not [name for name in shown if name not in ids]
    assert "seed: int = 0" in ids["amb.run"]
    assert "output_dir: str | Path = 'amb-results'" in ids["amb.run"]
    assert {
        "amb.Results.to_frame",
        "amb.Results.folder",
        "amb.VisionModel.features",
        "amb.plugin.specs.amb_run_started",
    } <= ids.keys()


def test_every_link_has_an_end_and_nothing_comes_from_elsewhere(site: Path) -> None:
    pages = {path: soup(path) for path in site.rglob("*.html")}
    ids = {path: {each["id"] for each in page.find_all(id=True)} for path, page in pages.items()}
    dead = []
    for path, page in pages.items():
        for tag, attribute in (("a", "href"), ("img", "src"), ("script", "src"), ("link", "href")):
            for target in (each[attribute] for each in page.find_all(tag, **{attribute: True})):
                dead += [] if ends(path, tag, target, ids) else [(path.name, target)]
    assert len(pages) > 60
    assert not dead


def ends(page: Path, tag: str, target: str, ids: dict[Path, set[str]]) -> bool:
    """Whether a link's end is in the site, or is the word of an author who links to a page of the web."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return tag == "a"
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return path.is_file() and (not parts.fragment or path not in ids or parts.fragment in ids[path])


def test_a_broken_link_fails_the_build(source: Path, tmp_path: Path) -> None:
    (tmp_path / "index.md").write_text("# Title\n\n[gone](nowhere.md) and [gone too](#no-such-heading)\n")
    done = build(tmp_path, tmp_path / "html")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr
    assert "no-such-heading" in done.stderr


NASTY = 'a <script>alert(1)</script> "b" *c* _d_ [e](f) {g}`h` ```` $i$ <!-- # j | k \\ &amp; ü ` x' * 20


def test_what_a_component_says_of_itself_is_shown_not_obeyed(tmp_path: Path) -> None:
    text = f"# Title\n\n{generate.prose(NASTY)}\n\n{generate.code(NASTY)}\n\nterm\n: {generate.prose(NASTY)}\n"
    (tmp_path / "index.md").write_text(text, encoding="utf-8")
    done = build(tmp_path, tmp_path / "html")
    assert (done.returncode, done.stderr) == (0, "")
    page = soup(tmp_path / "html" / "index.html").find("article")
    assert not page.find_all(["script", "em", "strong"])
    assert page.get_text().count("<script>alert(1)</script>") == 3 * 20


def test_an_old_folder_is_not_overwritten(tmp_path: Path) -> None:
    done = python(str(ROOT / "docs" / "generate.py"), str(tmp_path))
    assert done.returncode == 1
    assert "is there already: remove it" in done.stderr
