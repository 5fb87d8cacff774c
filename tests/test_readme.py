"""README.md and the pages in docs/: their Python runs, their commands and options exist, their links lead somewhere."""

import argparse
import ast
import importlib
import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from pacore_lab.__main__ import COMMANDS
from pacore_lab.config.spelling import spelt, words_of
from tests.servers import RecordingServer

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
SHIPPED = ("conf", "docs", "experiments", "tests")
EVERY = sorted([*ROOT.glob("*.md"), *(page for folder in SHIPPED for page in (ROOT / folder).rglob("*.md"))])
PACKAGES = {ROOT / "CONTRIBUTING.md", ROOT / "tests" / "plugin_package" / "README.md"}
"""Pages about packages of one's own, whose commands test_contributing.py and test_plugin_package.py run."""
OPTION = re.compile(r"(strategy(?:/\w+)?|backend|model|problems|grader|experiment)=([a-z]\w*)")
"""A group and one of its options. A placeholder is in capitals."""


class Parsed(Exception):
    """A command has read its command line."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def python_of(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands_of(page: Path) -> Iterator[list[str]]:
    """The words of each `python ...` line of the page's blocks of commands."""
    for block in re.findall(r"^```(?:bash)?\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip().startswith("python "):
                command = line.partition(" > ")[0].replace("$(seq -s, 1 32)", "1")
                yield shlex.split(command, comments=True)[1:]


def options_of(page: Path) -> Iterator[tuple[str, str]]:
    """`group=option` in backquotes; a table's column under `group=`, and its cells beside the name of a group."""
    column = None
    for line in page.read_text().splitlines():
        yield from (found for code in re.findall(r"`([^`]+)`", line) for found in OPTION.findall(code))
        first, *others = line.split("|")[1:] or [""]
        if group := re.fullmatch(r" `(\S+)=` ", first):
            column = group.group(1)
        elif column and line.startswith("| `"):
            yield from ((column, option) for option in re.findall(r"`(\w+)`", first))
        elif not line.startswith("|"):
            column = None
        if (group := re.fullmatch(r" `([\w/]+)` ", first)) and (ROOT / "conf" / group.group(1)).is_dir():
            yield from ((group.group(1), option) for option in re.findall(r"`(\w+)`", others[0]))


async def as_a_notebook(source: str, values: dict[str, Any]) -> None:
    """Run a cell, `await` outside of functions included, while the event loop of the notebook is running."""
    outcome = eval(compile(source, "a page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), values)
    if inspect.iscoroutine(outcome):
        await outcome


@pytest.fixture
async def server() -> Any:
    """Where the README says, or on a free port if something else listens there."""
    reply = "<think>20 * 17 + 4 * 17</think>\n17 * 24 = \\boxed{408}"
    for port in (8000, 0):
        serving = RecordingServer(lambda payload, n: reply, port=port)
        try:
            await serving.__aenter__()
        except OSError:
            await serving.runner.cleanup()
            continue
        yield serving
        await serving.__aexit__()
        return


async def test_the_readme_as_it_stands_in_a_notebook(
    server: RecordingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (cell,) = python_of(README)
    values: dict[str, Any] = {}
    await as_a_notebook(cell.replace(":8000", f":{server.port}"), values)
    asked = [payload for payload in server.requests if "What is 17 * 24?" in payload["messages"][-1]["content"]]
    assert len(asked) == 32 + 4 + 1
    assert asked[-1]["messages"][-1]["content"].count("17 * 24 = \\boxed{408}") == 4
    answer, tokens = capsys.readouterr().out.splitlines()[0].rsplit(" ", 1)
    assert (answer, int(tokens)) == ("17 * 24 = \\boxed{408}", values["solution"].tokens)
    assert int(tokens) >= 32 + 4 + 1
    table = values["load"](values["folder"]).table()
    assert [row["method"] for row in table] == ["single sample", "majority vote @32", "pacore_high"]
    assert [row["graded"] for row in table] == [12] * 3


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if python_of(page)], ids=name)
async def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {}
    for cell in python_of(page):
        await as_a_notebook(cell, values)


@pytest.mark.parametrize("page", [page for page in EVERY if page not in PACKAGES and any(commands_of(page))], ids=name)
def test_the_commands_of_a_page_are_there(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renamed options and commands live on in the pages: each command line is composed, or read by its command."""
    parse = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, *args: Any) -> Any:
        raise Parsed(parse(self, *args))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    for script, *words in commands_of(page):
        if script == "run.py":
            composes(words)
        elif script == "-m" and words[0] == "pacore_lab":
            reads(COMMANDS[words[1]][0], words[2:], monkeypatch)
        elif script == "-m" and words[0].startswith("pacore_lab.training.verl."):
            reads(words[0], words[1:], monkeypatch)
        elif script == "-m" and words[0].startswith("experiments."):
            assert (ROOT / words[0].replace(".", "/")).with_suffix(".py").exists(), words[0]


def composes(words: list[str]) -> None:
    """A sweep by its first values."""
    if "-m" in words:
        words = [word.partition(",")[0] for word in words if word != "-m"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        compose("config", spelt(words))


def reads(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if module.endswith(".regrade"):  # it has no parser: words of run.py follow the folder
        composes(words[1:])
        return
    monkeypatch.setattr(sys, "argv", ["command", *words])
    with pytest.raises(Parsed) as read:
        importlib.import_module(module).main()
    if module.endswith(".sweep"):
        for policy in read.value.args[0].policy:
            composes([re.sub(r",[^]=]*$", "", word) for word in words_of(policy)])


@pytest.mark.parametrize("page", [page for page in EVERY if page not in PACKAGES], ids=name)
def test_the_options_that_a_page_names_are_there(page: Path) -> None:
    for group, option in options_of(page):
        assert (ROOT / "conf" / group / f"{option}.yaml").exists(), f"{name(page)} names {group}={option}"


@pytest.mark.parametrize("page", EVERY, ids=name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), f"{name(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, f"{name(page)} links to {target}#{anchor}"
