"""The way over the hub, with a small one of our own: pinned commits, the cache, and everything that can be wrong."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "c94da77eb22bbd6439e62a323bec18493a421302"
LINE = json.dumps({"problem_idx": 1, "problem": "1 + 1?", "answer": "2"}) + "\n"
LOAD = """
import sys
from pacore_lab.errors import DataError
from pacore_lab.problems import AIME2025, LiveCodeBench
name, revision = sys.argv[1:]
problem_set = {"aime": AIME2025, "lcb": LiveCodeBench}[name](revision=revision)
try:
    print(len(problem_set.load()), problem_set.origin)
except DataError as error:
    print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """One set with one commit, as far as `huggingface_hub` asks: where it is, its tree, its files."""

    gated = False

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/datasets/") and not path.endswith((COMMIT, "main", "recursive=True")):
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if "/tree/" in path:
            tree = [{"type": "file", "oid": "0" * 40, "size": len(LINE), "path": "data/train.jsonl"}]
            return self.answer(200, json.dumps(tree).encode())
        if path.startswith("/api/"):
            siblings = [{"rfilename": "README.md"}, {"rfilename": "data/train.jsonl"}]
            return self.answer(200, json.dumps({"id": "x/y", "sha": COMMIT, "siblings": siblings}).encode())
        if self.gated:
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        return self.answer(200, LINE.encode(), {"ETag": '"0123"', "X-Repo-Commit": COMMIT})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def load(tmp_path):
    """Loads in a process of its own, since the hub's address is read at import; `load.url` is changed to go offline."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def load(name: str = "aime", revision: str = COMMIT) -> str:
        places = {"HF_ENDPOINT": load.url, "HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path)}
        kept = {key: value for key, value in os.environ.items() if "proxy" not in key.lower() and key[:3] != "HF_"}
        done = subprocess.run(
            [sys.executable, "-c", LOAD, name, revision],
            cwd=Path(__file__).parents[1],
            env=kept | places | {"NO_PROXY": "*"},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        assert done.stdout.count("\n") == 1
        load.err = done.stderr
        return done.stdout

    load.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield load
    server.shutdown()
    server.server_close()


def test_a_pinned_commit_is_fetched_once_and_serves_without_a_network(load):
    expected = f"1 MathArena/aime_2025@{COMMIT}\n"
    assert load() == expected
    assert load.err == ""
    load.url = "http://127.0.0.1:9"
    assert load() == expected


def test_a_branch_is_resolved_to_its_commit(load):
    assert load(revision="main") == f"1 MathArena/aime_2025@{COMMIT}\n"


def test_a_wrong_revision_is_one_line_even_with_another_in_the_cache(load):
    """`datasets.load_dataset` takes the latest cached revision instead, without an error."""
    load()
    said = load(revision="0" * 40)
    assert said.startswith(f"MathArena/aime_2025 at revision {'0' * 40} cannot be fetched from the hub (")
    assert "set problems.revision to one of its commits, or give a local copy: problems.path=FOLDER" in said


def test_no_network_is_one_line_at_once(load):
    load.url = "http://127.0.0.1:9"
    said = load()
    assert "cannot be fetched from the hub (ConnectError" in said
    assert "check the network and HF_ENDPOINT, or give a local copy: problems.path=FOLDER" in said
    assert "Retrying" not in load.err


def test_a_gated_set_says_what_to_do(load, monkeypatch):
    monkeypatch.setattr(Hub, "gated", True)
    assert "accept its terms on its page there and log in (hf auth login)" in load()


def test_a_set_that_lacks_files_is_refused(load):
    """A download that was cut would otherwise pass as a smaller set."""
    assert "FileNotFoundError: 0 of 6 files" in load("lcb")
