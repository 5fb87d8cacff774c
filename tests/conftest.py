"""A session has a temporary folder of its own, in which it leaves nothing of the lab's; fixtures of several files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist, which has the folder of its session
        return
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # `tmp_path` stays where it is looked for
    config.stash[FOLDER] = Path(tempfile.mkdtemp(prefix="pacore-tests-"))
    os.environ["TMPDIR"] = tempfile.tempdir = str(config.stash[FOLDER])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """After the workers have ended: what is left named pacore-* fails the session."""
    yield
    folder = session.config.stash.get(FOLDER, None)
    if folder is None:
        return
    if left := sorted(path.name for path in folder.glob("pacore-*")):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nleft in the temporary folder: {', '.join(left)}")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def logs_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of an engine that failed stays for its user to read: here, in the folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def datasets_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` converts stays in the folder of the session."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "hf")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder with ten.jsonl, of ten sums."""
    sums = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(10)]
    (tmp_path / "ten.jsonl").write_text("".join(json.dumps(each) + "\n" for each in sums))
    monkeypatch.chdir(tmp_path)
    return tmp_path
