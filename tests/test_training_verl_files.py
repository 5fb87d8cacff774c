"""Files around verl, which need no verl: the checkpoint with YaRN, a log from its dumps, the scripts that start it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pacore_lab.errors import ConfigError
from pacore_lab.training.logs import read_log
from pacore_lab.training.verl import checkpoint, dumps, reward
from tests.commands import call, refused

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "experiments/tiny_models/rlvr-tiny"
SCRIPTS = ROOT / "experiments/train_pacore_8b"


def test_the_copy_is_the_checkpoint_with_yarn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """What transformers loads from it has the frequencies that `model.yarn_factor` gives, and the same weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from backends._checkpoint import load
    from pacore_lab.types import Model

    to = tmp_path / "copy"
    call(monkeypatch, checkpoint, TINY, "--to", to, "--factor", 4, "--original", 1024)
    assert "(4096 tokens)" in capsys.readouterr().out
    assert {file.name for file in to.iterdir()} == {file.name for file in TINY.iterdir() if file.is_file()}
    config = AutoConfig.from_pretrained(to)
    assert config.max_position_embeddings == 4096
    assert config.rope_parameters == {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 1024,
        "attention_factor": 1.0,
    }  # fmt: skip
    which = Model(name="tiny", path=str(TINY), dtype="float32", yarn_factor=4.0, yarn_original=1024)
    expected, copied = load(which, TINY, "cpu")[0], AutoModelForCausalLM.from_pretrained(to, dtype="float32").eval()
    plain = load(Model(name="tiny", path=str(TINY), dtype="float32"), TINY, "cpu")[0]
    ids = torch.tensor([AutoTokenizer.from_pretrained(to)("What is 23 * 45?" * 20)["input_ids"]])
    with torch.inference_mode():
        assert torch.equal(copied(ids).logits, expected(ids).logits)
        assert not torch.allclose(copied(ids).logits, plain(ids).logits, atol=1e-2), "this test shows nothing"


def test_a_config_of_transformers_4() -> None:
    old = {"rope_theta": 1e6, "rope_scaling": None, "max_position_embeddings": 65536, "hidden_size": 8}
    made = checkpoint.stretched(old)
    assert made == {
        "max_position_embeddings": 131072,
        "hidden_size": 8,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 2.0,
            "original_max_position_embeddings": 65536,
            "attention_factor": 1.0,
        },
    }
    with pytest.raises(ConfigError, match="already has RoPE of type 'yarn'"):
        checkpoint.stretched(made)
    with pytest.raises(ConfigError, match="no rope_theta"):
        checkpoint.stretched({"hidden_size": 8})


def test_copies_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    to = tmp_path / "copy"
    assert "has no config.json" in refused(monkeypatch, capsys, checkpoint, tmp_path, "--to", to)
    assert "--factor 0.5" in refused(monkeypatch, capsys, checkpoint, TINY, "--to", to, "--factor", 0.5)
    assert sorted(tmp_path.iterdir()) == []
    to.mkdir()
    assert "already exists" in refused(monkeypatch, capsys, checkpoint, TINY, "--to", to)
    assert list(to.iterdir()) == []


def dumped(score: float, output: str, scores: list[float | None], domain: str = "math", uid: str = "a_0_0") -> str:
    gts = json.dumps({"record": "r", "number": 0, "domain": domain, "answer": "1", "scores": scores})
    return json.dumps({"input": "?", "output": output, "gts": gts, "score": score, "step": 1, "uid": uid}) + "\n"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Steps 2 and 10, of which 2 was trained again after a restart."""
    for name, text in {
        "rollouts/10.jsonl": dumped(1.0, "Ref 1 is right", [1.0, 0.0]),
        "rollouts/2.jsonl": dumped(1.0, "reference</think>ref 2", [0.0, 0.0])
        + dumped(0.0, "no", [0.0, 0.0])
        + dumped(reward.UNGRADED, "reference", [0.0])
        + dumped(0.25, "参考", [0.0, None], "code")
        + dumped(0.0, "", [], uid="padabc_0_0"),
        "metrics/1.jsonl": '{"step": 2, "data": {"response_length/mean": 5.0}}\n{"step": 3, "data": {"loss": 1}}\n',
        "metrics/2.jsonl": '{"step": 2, "data": {"response_length/mean": 7.5}}\n{"step": 10, "da',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_log_for_the_curves_from_verls_dumps(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    call(monkeypatch, dumps, out / "rollouts", "--metrics", out / "metrics", "--to", out / "log.jsonl")
    assert "2 steps, 5 responses, 1 of them ungraded" in capsys.readouterr().out
    first, last = read_log(out / "log.jsonl")
    assert (first.step, last.step) == (2, 10), "as numbers, not as texts"
    assert (first.length, last.length) == (7.5, None)
    assert first.reward == pytest.approx((1.0 + 0.0 + 0.25) / 3), "the ungraded one counts for nothing"
    assert first.counts == {
        "responses": 4, "graded": 3, "all_wrong": 2, "emergent": 1, "cross_checks": 4, "concluding": 3,
    }  # fmt: skip
    line = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    assert line["domains"]["code"]["reward"] == 0.25
    assert line["domains"]["math"]["counts"]["responses"] == 3
    assert line["characters"] == pytest.approx((len("reference</think>ref 2") + 2 + 9 + 2) / 4)


def test_a_step_where_nothing_was_graded_has_no_reward(out: Path) -> None:
    (out / "rollouts" / "2.jsonl").write_text(dumped(reward.UNGRADED, "x", [0.0]))
    line = next(dumps.log(out / "rollouts", {}))
    assert line["reward"] is None
    assert line["counts"]["all_wrong"] == 0


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rollouts/3.jsonl", '{"output": "x", "gts": "21", "score": 1, "uid": "a"}\n', "3.jsonl:1: not a response"),
        ("rollouts/3.jsonl", "nothing\n", "3.jsonl:1: not a response"),
        ("rollouts/all.jsonl", "", "all.jsonl: its name is not a step"),
        ("metrics/3.jsonl", "nothing\n", "3.jsonl:1: not a line of verl's file logger"),
    ],
)
def test_files_that_verl_did_not_write(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, name: str, text: str, said: str
) -> None:
    (out / name).write_text(text)
    words = (out / "rollouts", "--metrics", out / "metrics", "--to", out / "log.jsonl")
    assert said in refused(monkeypatch, capsys, dumps, *words)
    assert [file.name for file in out.iterdir() if file.is_file()] == []


def test_a_folder_without_dumps(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    said = refused(monkeypatch, capsys, dumps, out, "--metrics", out / "metrics", "--to", out / "log.jsonl")
    assert "holds no .jsonl file" in said


def script(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """With a `ray` and a Python that only say how they were called."""
    for name in ("ray", "python"):
        (folder / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (folder / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": str(folder / "python")}
    return subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True)


def test_the_cluster_trains_with_the_command_of_one_node(tmp_path: Path) -> None:
    """Relative paths mean another folder where Ray runs the job, and blanks in them must not split words."""
    submit = (str(SCRIPTS / "cluster.sh"), "submit", "4", "my ckpt", "r.parquet", "out", "trainer.save_freq=5")
    sent = script(tmp_path, *submit).stdout.splitlines()
    assert sent[:3] == ["job", "submit", "--address=http://127.0.0.1:8265"]
    job = sent[sent.index("--") + 1 :]
    assert job[2:] == [
        f"{tmp_path}/my ckpt", f"{tmp_path}/r.parquet", f"{tmp_path}/out", "trainer.nnodes=4", "trainer.save_freq=5",
    ]  # fmt: skip
    done = script(tmp_path, *job)
    assert done.returncode == 0, done.stderr
    called = done.stdout.splitlines()
    assert called[:6] == ["-m", "verl.trainer.main_ppo", "--config-path", str(SCRIPTS), "--config-name", "recipe"]
    assert f"actor_rollout_ref.model.path='{tmp_path}/my ckpt'" in called
    assert called[-2:] == ["trainer.nnodes=4", "trainer.save_freq=5"]
    assert (tmp_path / "out" / "metrics").is_dir()
    assert script(tmp_path, str(SCRIPTS / "cluster.sh"), "worker", "10.0.0.1").stdout.splitlines() == [
        "start", "--address=10.0.0.1:6379",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [("train.sh",), ("cluster.sh",), ("cluster.sh", "worker"), ("cluster.sh", "submit")])
def test_scripts_say_how_they_are_called(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = script(tmp_path, str(SCRIPTS / words[0]), *words[1:])
    assert (done.returncode, done.stderr.startswith(words[0])) == (2, True)
