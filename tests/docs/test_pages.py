"""What the pages say of the command line is what the command line says of itself."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

from hoarfrost.cli.main import available_verbs, command_line

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def cli_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cli_page", ROOT / "docs/cli_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(page: Path) -> list[list[str]]:
    """The hoarfrost command lines in the code of a page; lines that end in a backslash go on in the next."""
    text = page.read_text().replace("\\\n", " ")
    fenced = "\n".join(re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))
    code = [*fenced.splitlines(), *re.findall(r"^    (.*)", text, flags=re.MULTILINE)]
    lines = [line.strip().removeprefix("$ ") for line in code]
    return [shlex.split(line.split("  #")[0])[1:] for line in lines if line.startswith("hoarfrost ")]


def test_the_reference_of_the_command_line_is_up_to_date() -> None:
    page = cli_page()
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "run: python docs/cli_page.py"


def test_the_readme_lists_every_verb() -> None:
    readme = (ROOT / "README.md").read_text()
    listed = re.findall(r"^\| `(\w+)", readme, flags=re.MULTILINE)
    assert listed == [verb.name for verb in available_verbs()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_on_the_pages_exist(page: Path) -> None:
    verbs = {verb.name for verb in available_verbs()}
    for verb, *rest in commands(page):
        if verb == "--help":
            continue
        assert verb in verbs, f"{page.name}: hoarfrost {verb}"
        command = typer.main.get_command(command_line(verb)).commands[verb]
        known = {"--help", *(word for p in command.params for word in (*p.opts, *p.secondary_opts))}
        used = {word for word in rest if re.match(r"--?[a-z]", word)}
        assert used <= known, f"{page.name}: hoarfrost {verb} {shlex.join(rest)}"


def test_pictures_are_there_and_small() -> None:
    for page in PAGES:
        for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text()):
            picture = page.parent / name
            assert picture.stat().st_size < 200_000, picture
            assert picture.suffix == ".png", picture


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for built in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', built.read_text())
        assert loaded == [], built
