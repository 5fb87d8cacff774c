"""CONTRIBUTING.md's examples, installed as the third-party package they describe, run as its commands say."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pacore_lab import run

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
COMMANDS = re.findall(r"^python run\.py (.+)$", TEXT, re.MULTILINE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install` leaves of the package: its files and its entry point."""
    site = tmp_path_factory.mktemp("site")
    for name, body in re.findall(r"```\w+ (\S+)\n(.*?)```", TEXT, re.DOTALL):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(body)
    for package in ("my_ideas", "my_ideas/conf"):
        (site / package / "__init__.py").touch()
    points = (site / "pyproject.toml").read_text().replace("project.entry-points.", "").replace('"', "")
    info = site / "my_ideas-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-ideas\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(points)
    return site


@pytest.fixture
def here(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The working directory of the commands, and the package on the path of this process."""
    monkeypatch.chdir(site)
    monkeypatch.syspath_prepend(site)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_ideas"]:
        del sys.modules[name]


def lines_of(command: str, out: Path) -> list[dict[str, Any]]:
    """What three problems leave of a command, with the mock backend in place of the default one."""
    words = shlex.split(command)
    mock = [] if any(word.startswith("backend=") for word in words) else ["backend=mock"]
    run(*words, *mock, limit=3, out=out / "out", store=out / "store.sqlite")
    return [json.loads(line) for line in (out / "out" / "results.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_runs_as_its_command_says(command: str, tmp_path: Path) -> None:
    lines = lines_of(command, tmp_path)
    assert [line["error"] for line in lines] == [None] * 3
    widths = [len(done) for done in lines[0]["round_responses"]]
    asked = lines[0]["problem"][-1]["content"]
    examples = ("shortest", "halving", "first_repeated", "squares", "parrot", "")
    match next(example for example in examples if example in command):
        case "shortest":
            assert len(lines[0]["messages"][0]) == 3
        case "halving":
            assert widths == [8, 4, 2, 1]
        case "first_repeated":
            assert len(widths) == 1
        case "squares":
            assert asked == "What is 11 squared? Put the final answer in \\boxed{}."
            assert lines[0]["ground_truth"] == {"answer": "121"}
        case "parrot":
            assert lines[0]["round_responses"][0][0]["content"] == asked
        case _:
            assert widths == [4, 1]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "begins"),
    [
        (["strategy/prompt=file", "strategy.prompt.path=my_ideas/terse.txt"], "Drafts by others, right or wrong:"),
        (["strategy/prompt=drafts"], "4 drafts by others, right or wrong:"),
    ],
)
def test_the_prompts_reach_the_model(words: list[str], begins: str, tmp_path: Path) -> None:
    """The parrot says what it was asked: the problem in the first round, the prompt with four drafts in the second."""
    lines = lines_of(shlex.join([*words, "backend=parrot", "grader=none"]), tmp_path)
    asked = lines[0]["problem"][-1]["content"]
    final = lines[0]["final_response"]
    assert final.startswith(f"{asked}\n\n{begins}\n")
    assert final.endswith("\nGive your own answer.")
    assert final.count(asked) == 5


def test_help_lists_what_the_package_adds(site: Path) -> None:
    """From the command line, in a process of its own, where nothing but the entry point leads to the package."""
    command = [sys.executable, str(ROOT / "run.py"), "--help"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for option in ("shortest", "drafts", "halving", "first_repeated", "squares", "parrot"):
        assert option in done.stdout
