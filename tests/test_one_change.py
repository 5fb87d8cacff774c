"""The promise of the design: one small file and one YAML change one thing, and nothing else has to be touched.

Each case adds exactly these two files to a copy of the repository and then uses the new option from the command line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.outside import ROOT, lines_of

# What a run with the mock backend needs.
PARTS = ("pacore_lab", "strategies", "backends", "conf", "run.py", ".gitignore")

LAST_CHARACTERS = """\
from dataclasses import dataclass

from pacore_lab.types import Message


@dataclass(frozen=True, kw_only=True)
class LastCharacters:
    n: int

    def __call__(self, trajectories):
        return tuple(Message(text=t.content[-self.n :], sources=(t.id,)) for t in trajectories if t.content)
"""

LAST_SAMPLE = """\
from dataclasses import dataclass

from pacore_lab.types import Round, Solution


@dataclass(frozen=True, kw_only=True)
class LastSample:
    n: int

    async def solve(self, problem, sampler):
        seen = await sampler.sample(problem.messages, self.n)
        return Solution.of(seen[-1], [Round.of(seen)])
"""


@dataclass(frozen=True)
class Change:
    """group: of the option. folder: where such parts are. code: of the file. shows: whether a line shows its work."""

    group: str
    name: str
    folder: str
    code: str
    target: str
    shows: Callable[[dict[str, Any]], bool]

    @property
    def files(self) -> dict[str, str]:
        return {
            f"{self.folder}/{self.name}.py": self.code,
            f"conf/{self.group}/{self.name}.yaml": f"_target_: {self.target}\nn: 3  # of them\n",
        }


def messages_are_last_characters(line: dict[str, Any]) -> bool:
    made = [(message["text"], message["sources"]) for message in line["messages"][0]]
    sampled = zip(line["round_responses"][0], line["trajectories"][0], strict=True)
    return len(made) == 4 and made == [(response["content"][-5:], [fact["id"]]) for response, fact in sampled]


def answer_is_the_last_of_five(line: dict[str, Any]) -> bool:
    (sampled,) = line["trajectories"]
    return len(sampled) == 5 and line["answers"] == [sampled[-1]["id"]] and sampled[-1]["index"] == 4


CHANGES = [
    Change(
        group="strategy/compaction",
        name="last_characters",
        folder="strategies/compaction",
        code=LAST_CHARACTERS,
        target="strategies.compaction.last_characters.LastCharacters",
        shows=messages_are_last_characters,
    ),
    Change(
        group="strategy",
        name="last_sample",
        folder="strategies",
        code=LAST_SAMPLE,
        target="strategies.last_sample.LastSample",
        shows=answer_is_the_last_of_five,
    ),
]


@dataclass(frozen=True)
class Copy:
    """The repository once more, all of it committed."""

    root: Path

    def git(self, *arguments: str) -> str:
        """Deaf to this machine's settings, and to the repository of whoever started the tests from a hook."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments]
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def run(self, *arguments: str) -> str:
        command = [sys.executable, "run.py", *arguments]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    root = tmp_path / "repository"
    root.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, root / part)
    made = Copy(root=root)
    made.git("init", "--quiet")
    made.git("add", ".")
    made.git("commit", "--quiet", "--message", "before")
    return made


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_a_part_is_one_file_and_one_yaml(change: Change, copy: Copy, tmp_path: Path) -> None:
    """A list of known parts somewhere (an `__init__`, a registry, a table of options) that a newcomer has to extend."""
    for name, text in change.files.items():
        assert not (copy.root / name).exists()
        (copy.root / name).write_text(text)
    listed = copy.run("--help")
    choice = f"{change.group}={change.name}"
    width = f"{change.group.replace('/', '.')}.n=5"
    copy.run("backend=mock", choice, width, "limit=3", f"out={tmp_path / 'out'}", f"store={tmp_path / 's.sqlite'}")

    (options,) = (line for line in listed.splitlines() if line.strip().startswith(f"{change.group}: "))
    assert change.name in options.partition(": ")[2].split(", ")
    lines = lines_of(tmp_path / "out" / "results.jsonl")
    assert [line["error"] for line in lines] == [None] * 3
    assert all(change.shows(line) for line in lines)
    status = copy.git("status", "--porcelain", "--untracked-files=all")
    assert sorted(status.splitlines()) == sorted(f"?? {name}" for name in change.files)
