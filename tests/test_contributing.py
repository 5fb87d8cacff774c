"""CONTRIBUTING.md's examples, installed as the third-party package they describe, run as its commands say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `pip install` leaves of the package: its files and its entry point."""
    site = tmp_path_factory.mktemp("site")
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for name, body in re.findall(r"```\w+ (\S+)\n(.*?)```", text, re.DOTALL):
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


def run(site: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    done = subprocess.run(command, cwd=site, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "widths"),
    [
        (["backend=mock", "strategy/compaction=shortest", "strategy.compaction.n=3"], [4, 1]),
        (["backend=mock", "strategy=first_repeated", "strategy.most=40"], None),
        (["backend=parrot", "grader=none"], [4, 1]),
    ],
)
def test_the_examples_run(site: Path, tmp_path: Path, arguments: list[str], widths: list[int] | None) -> None:
    run(site, *arguments, "limit=3", f"out={tmp_path / 'out'}", f"store={tmp_path / 's.sqlite'}")
    lines = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [line["error"] for line in lines] == [None] * 3
    for line in lines:
        if widths:
            assert [len(done) for done in line["round_responses"]] == widths
        if "strategy/compaction=shortest" in arguments:
            assert len(line["messages"][0]) == 3


def test_help_lists_what_the_package_adds(site: Path) -> None:
    text = run(site, "--help")
    for option in ("shortest", "first_repeated", "parrot"):
        assert option in text
