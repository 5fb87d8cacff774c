"""tests/plugin_package/ as its users would have it: its wheel built, installed, and used from the command line."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from pacore_lab.errors import RequestError
from pacore_lab.grading import NoGrader
from pacore_lab.interfaces import Request
from pacore_lab.types import Model, Problem, SamplingParams
from tests.doubles import Scripted, dispatcher, episode, trajectory, user
from tests.outside import RUN, results_of
from tests.plugin_package.pacore_lab_example.adder import Adder
from tests.plugin_package.pacore_lab_example.shuffled_words import ShuffledWords
from tests.plugin_package.pacore_lab_example.two_of_three import TwoOfThree
from tests.test_architecture import ROOMS, ROOT, SEAM, imports, room_of

SOURCE = ROOT / "tests" / "plugin_package"
PACKAGE = "pacore_lab_example"
OPTIONS = {"strategy": "two_of_three", "strategy/compaction": "shuffled_words", "backend": "adder"}
YAMLS = [f"{PACKAGE}/conf/{group}/{option}.yaml" for group, option in OPTIONS.items()]
ADDER = ("backend=adder", "problems=arithmetic", "problems.n=60")


def pip(*arguments: str | Path) -> None:
    """Without a network: nothing is looked up, and the package is built with this environment's setuptools."""
    command = [sys.executable, "-m", "pip", *arguments, "--no-index", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools builds beside the source."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    pip("wheel", "--no-build-isolation", "--wheel-dir", folder, folder / "source")
    (built,) = folder.glob("*.whl")
    return built


@dataclass(frozen=True)
class Installed:
    """The package in a folder of its own on Python's path, as in a user's environment."""

    site: Path
    folder: Path

    def said(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(self.site)}
        command = [sys.executable, str(RUN), *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120)

    def results(self, name: str, *arguments: str) -> list[dict[str, Any]]:
        """What a run leaves, by problem; all runs share a store, and so their draws."""
        done = self.said(*arguments, f"out={name}", "store=s.sqlite")
        assert done.returncode == 0, done.stderr
        lines = [line for _, line in sorted(results_of(self.folder / name).items())]
        assert [line["error"] for line in lines] == [None] * len(lines)
        return lines


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    site = tmp_path_factory.mktemp("site")
    pip("install", "--target", site, wheel)
    return Installed(site=site, folder=tmp_path_factory.mktemp("runs"))


def score(lines: list[dict[str, Any]]) -> float:
    return sum(line["grade"]["score"] for line in lines) / len(lines)


# ---- the package ----


def test_the_wheel_holds_the_configs(wheel: Path) -> None:
    """A wheel without its YAML, or whose conf/ is no package, installs without a word and adds no option."""
    held = set(zipfile.ZipFile(wheel).namelist())
    assert held >= {*YAMLS, f"{PACKAGE}/conf/__init__.py"}
    assert not [name for name in held if not name.startswith(PACKAGE)]


@pytest.mark.parametrize("name", YAMLS)
def test_a_config_lists_every_argument_of_its_class(name: str) -> None:
    node = OmegaConf.load(SOURCE / name)
    arguments = set(inspect.signature(get_object(f"tests.plugin_package.{node['_target_']}")).parameters)
    assert set(node) - {"_target_"} == arguments


def test_the_package_knows_the_seams_only_and_nothing_knows_it() -> None:
    ours = {name for file in SOURCE.rglob("*.py") for name in imports(file) if room_of(name) in ROOMS}
    assert ours
    assert ours <= SEAM | {"pacore_lab"}
    for room in ("pacore_lab", "strategies", "backends", "conf"):
        files = [file for end in ("py", "yaml") for file in (ROOT / room).rglob(f"*.{end}")]
        assert files
        assert not [file for file in files if PACKAGE in file.read_text(encoding="utf-8")]


# ---- the command ----


def test_help_lists_the_options_in_their_groups(installed: Installed) -> None:
    done = installed.said("--help")
    assert done.returncode == 0, done.stderr
    groups = dict(line.strip().split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    for group, option in OPTIONS.items():
        assert option in groups[group].split(", ")


def test_two_of_three_is_the_vote_of_three_for_fewer_samples(installed: Installed) -> None:
    """On common draws it answers what `majority_vote` with k=3 answers, and samples a third only without a majority."""
    saved = installed.results("saved", *ADDER, "strategy=two_of_three")
    voted = installed.results("voted", *ADDER, "strategy=majority_vote", "strategy.k=3")
    assert [line["grade"]["score"] for line in saved] == [line["grade"]["score"] for line in voted]
    assert [line["answers"] for line in saved] == [line["answers"] for line in voted]
    assert 0 < score(saved) < 1
    for line, full in zip(saved, voted, strict=True):
        first, second = (sample["class"] for sample in full["samples"][:2])
        drawn = [fact["id"] for fact in line["trajectories"][0]]
        assert drawn == [fact["id"] for fact in full["trajectories"][0]][: 2 if first == second else 3]
    assert {len(line["trajectories"][0]) for line in saved} == {2, 3}


def test_messages_are_the_conclusions_words_out_of_order(installed: Installed) -> None:
    lines = installed.results("pacore", *ADDER, "limit=5", "strategy/compaction=shuffled_words")
    moved = 0
    for line in lines:
        sampled, _ = line["round_responses"]
        assert len(line["messages"][0]) == len(sampled) == 4
        for message, response, fact in zip(line["messages"][0], sampled, line["trajectories"][0], strict=True):
            said = response["content"].partition("</think>")[2].split()
            assert message["sources"] == [fact["id"]]
            assert Counter(message["text"].split()) == Counter(said)
            moved += message["text"].split() != said
    assert moved > 10


def test_an_adder_that_never_slips_is_always_right(installed: Installed) -> None:
    assert score(installed.results("right", *ADDER, "backend.slip=0", "strategy=single")) == 1


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["strategy/compaction=shuffled_words", "strategy.compaction.spam=3"], "no key strategy.compaction.spam"),
        (["strategy/compaction=shuffled_words", "strategy.compaction.span=1"], "strategy.compaction.span is 1"),
        (["backend=adder", "backend.slip=2"], "backend.slip is 2"),
        (["strategy=two_of_three", "grader=lcb_subprocess"], "strategy=two_of_three votes"),
    ],
)
def test_a_mistake_in_a_key_of_the_package_is_one_line(
    installed: Installed, arguments: list[str], fragment: str
) -> None:
    done = installed.said(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert fragment in done.stderr


# ---- the parts, by hand ----


def asked(text: str, **params: Any) -> Request:
    return Request(id="a", prompt=user(text), params=SamplingParams(**params), seed=1)


@pytest.mark.parametrize(
    ("slip", "text", "answer"),
    [
        (0.0, "What is 57 + 68?", "125"),
        (1.0, "What is 57 + 68?", "15"),  # 7 + 8 is 5, 5 + 6 is 1, and no carry is remembered
        (1.0, "What is 120 + 34?", "154"),  # nothing to carry
        (0.0, "What is 5 + 5? Reference 1: 5 + 6 is 11", "10"),
        (1.0, "What is 5 + 5?", "0"),
    ],
)
async def test_the_adder_forgets_carries(slip: float, text: str, answer: str) -> None:
    said = await Adder(model=Model(name="m"), slip=slip).complete(asked(text))
    assert said.content.endswith(f"\\boxed{{{answer}}}")
    assert said.finish_reason == "stop"


async def test_the_adder_keeps_to_what_is_asked() -> None:
    adder = Adder(model=Model(name="m"), slip=1.0)
    cut = await adder.complete(asked("What is 57 + 68?", max_tokens=2))
    assert (cut.content, cut.finish_reason, cut.generated_tokens) == ("<think> 7+8+0=15", "length", 2)
    greedy = await adder.complete(asked("What is 57 + 68?", temperature=0.0))
    assert greedy.content.endswith("\\boxed{125}")
    with pytest.raises(RequestError, match="no sum"):
        await adder.complete(asked("What is 57 * 68?"))
    with pytest.raises(ValueError, match=r"model\.top_p is 0\.9"):
        Adder(model=Model(name="m", top_p=0.9))


@pytest.mark.parametrize(
    ("said", "drawn", "answers"),
    [
        (["7", "7", "8"], 2, ["7"]),
        (["7", "8", "8"], 3, ["8"]),
        (["7", "8", "9"], 3, ["7", "8", "9"]),  # a tie: the score is their mean
        (["", "7", "7"], 3, ["7"]),
        (["", "", "7"], 3, ["7"]),  # two without an answer do not agree
        (["", "", ""], 3, []),
    ],
)
async def test_a_third_is_drawn_where_two_do_not_agree(
    said: list[str], drawn: int, answers: list[str], tmp_path: Path
) -> None:
    backend = Scripted(lambda request, n: said[n] and f"\\boxed{{{said[n]}}}")
    async with dispatcher(backend, tmp_path, concurrency=1) as dispatch:
        solution = await TwoOfThree(grader=NoGrader()).solve(Problem(id="p", messages=user("x")), episode(dispatch))
    assert [len(done.trajectories) for done in solution.rounds] == [drawn]
    assert [answer.content for answer in solution.answers] == [f"\\boxed{{{answer}}}" for answer in answers]
    assert solution.reason == ("" if answers else "no valid answer among 3 trajectories")


def test_words_stay_within_their_span() -> None:
    said = trajectory("<think>x</think> a b c d e f g")
    (message,) = ShuffledWords(span=3)([said, trajectory("", "empty"), trajectory("x", "failed", error="failed: x")])
    words = message.text.split()
    assert message.sources == ("t",)
    assert [set(words[:3]), set(words[3:6]), words[6:]] == [set("abc"), set("def"), ["g"]]
    assert ShuffledWords(span=3)([said]) == (message,)
    assert ShuffledWords()([said])[0].text != ShuffledWords(seed=1)([said])[0].text
