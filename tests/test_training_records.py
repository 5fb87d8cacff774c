"""Records of training: written and read back the same, in both formats, and one line for files that are not right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacore_lab.errors import ConfigError, DataError
from pacore_lab.problems import PaCoReTrain8k
from pacore_lab.training import Record, read_records, require_disjoint, write_records
from pacore_lab.training.records import reads_back
from tests.doubles import user

SUFFIXES = (".jsonl", ".parquet")
TESTS = {"tests": [{"testtype": "stdin", "input": "1\n", "output": "2\n"}], "fn_name": None}
NASTY = ["", "\x00", "\u2028\u2029\x85\x0b\x0c\r\n", "</think>", '{"answer": 1}', '"', "\\", "𝔘 参考 \ufeff", "{{ x }}"]

texts = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
solid = texts.filter(str.strip)
scores = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 1 / 3]), st.floats(0, 1))
pools = st.lists(st.tuples(texts, scores), max_size=4)
cases = st.fixed_dictionaries({"testtype": st.just("stdin"), "input": texts, "output": texts})
truths = st.one_of(
    st.fixed_dictionaries({"answer": st.one_of(solid, st.sampled_from(["3.10", "007", "[1]", '[{"a": 1}]', "NaN"]))}),
    st.builds(lambda made: {"reference": {"tests": made, "fn_name": None}}, st.lists(cases, min_size=1, max_size=2)),
)


@st.composite
def records(draw: st.DrawFn, name: str) -> Record:
    turns = draw(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), texts), max_size=2))
    drawn = draw(pools)
    return Record(
        id=name,
        conversation=tuple({"role": role, "content": text} for role, text in [*turns, ("user", draw(solid))]),
        responses=tuple(text for text, _ in drawn),
        scores=tuple(score for _, score in drawn),
        **draw(truths),
    )


def record(name: str = "a", **changed: Any) -> Record:
    given = {"conversation": user("Q?"), "responses": ("1",), "scores": (1.0,), "answer": "1"}
    return Record(id=name, **{**given, **changed})


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=records("one"), two=records("é \u2028 two"))
def test_round_trip(suffix: str, one: Record, two: Record, tmp_path: Path) -> None:
    """Answers that look like JSON or numbers, line separators inside texts, tests beside answers in one file."""
    path = tmp_path / f"pool{suffix}"
    write_records(path, [one, two])
    assert read_records(path) == [one, two]
    assert [each.domain for each in (one, two)] == ["math" if each.answer else "code" for each in (one, two)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_published_reader_takes_our_files(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The checkpoint of stage 2 is run on them as problems=pacore_train_8k_stage1."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "hf")
    path = tmp_path / f"pool{suffix}"
    write_records(path, [record("a", answer="3.10"), record("b", answer=None, reference=TESTS)])
    first, second = PaCoReTrain8k(path=str(path)).load()
    assert (first.answer, first.messages, second.reference) == ("3.10", user("Q?"), TESTS)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_published_file_has_no_ids_and_no_scores(suffix: str, tmp_path: Path) -> None:
    rows = [{"conversation": list(user(f"{n}?")), "responses": ["x", "y"], "ground_truth": f"{n}.0"} for n in range(2)]
    path = tmp_path / f"stage1{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\ufeff" + "\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found = read_records(path)
    assert [(each.id, each.answer) for each in found] == [("stage1-0", "0.0"), ("stage1-1", "1.0")]
    assert found[0].scores == (None, None)
    assert found[0].accuracy is None


def test_accuracy_is_of_messages_that_are_all_graded() -> None:
    """An ungraded message counted as wrong makes a problem look hard."""
    assert record(responses=("1", "2"), scores=(1.0, 0.0)).accuracy == 0.5
    assert record(responses=("1", "2"), scores=(1.0, None)).accuracy is None
    assert record(responses=(), scores=()).accuracy is None


GOOD = {"conversation": list(user("Q?")), "responses": ["1"], "ground_truth": "1"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", ":2: not a line of JSON"),
        ("[1]", ":2: a JSON list, not an object"),
        (json.dumps({"conversation": GOOD["conversation"], "ground_truth": "1"}), ":2: there is no column 'responses'"),
        (json.dumps(GOOD | {"responses": "one text"}), ":2: responses is not JSON"),
        (json.dumps(GOOD | {"responses": [1]}), ":2: responses is not a list of texts"),
        (json.dumps(GOOD | {"responses": ["\ud800"]}), ":2: responses[0] holds half of a surrogate pair"),
        (json.dumps(GOOD | {"scores": [1, 0]}), ":2: scores is not a list of 1"),
        (json.dumps(GOOD | {"scores": [2]}), ":2: scores holds"),
        (json.dumps(GOOD | {"scores": [float("nan")]}), ":2: scores holds"),
        (json.dumps(GOOD | {"scores": [True]}), ":2: scores holds"),
        (json.dumps(GOOD | {"ground_truth": {}}), ":2: ground_truth"),
        (json.dumps(GOOD | {"id": "a-0"}), ":2: id 'a-0' is already used at"),
    ],
)
def test_bad_lines_are_told_by_their_number(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n")
    with pytest.raises(DataError, match=r"^[^\n]*$") as raised:
        read_records(path)
    assert said in str(raised.value)


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    (tmp_path / "b.jsonl").write_text("\n")
    (tmp_path / "c.parquet").mkdir()
    rows = [{"conversation": list(user("Q?")), "responses": ["1"], "ground_truth": 1.5}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    said = {
        "a.parquet": "not a readable parquet file",
        "b.jsonl": "holds no records",
        "c.parquet": "c.parquet: ",
        "d.parquet": "d.parquet: row 1: ground_truth is neither",
        "e.jsonl": "No such file",
        "f.csv": "not a .jsonl or .parquet file",
    }
    for name, words in said.items():
        with pytest.raises(DataError, match=r"^[^\n]*$") as raised:
            read_records(tmp_path / name)
        assert words in str(raised.value), name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_would_not_read_back_is_not_written_and_the_old_file_stays(suffix: str, tmp_path: Path) -> None:
    """A turn's other keys lost in silence, or a half-written file over a whole one."""
    path = tmp_path / f"pool{suffix}"
    write_records(path, [record()])
    before = path.read_bytes()
    function = {"tests": [{"testtype": "functional", "input": "1", "output": "2"}], "fn_name": None}
    unfit = [
        record("b", conversation=({"role": "user", "content": "Q?", "name": "x"},)),
        record("b", conversation=({"role": "user", "content": [{"type": "text", "text": "Q?"}]},)),
        record("b", conversation=(*user("Q?"), {"role": "assistant", "content": "A"})),
        record("b", responses=("\ud800",)),
        record("b", answer=" "),
        record("b", answer=None, reference=function),
    ]
    for each in unfit:
        assert not reads_back(each)
        with pytest.raises(DataError, match="'b' does not fit the format"):
            write_records(path, [record(), each])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.jsonl").mkdir()
    for name, said in {"file/a.jsonl": "cannot be", "folder.jsonl": "cannot be", "a.csv": "neither .jsonl nor"}.items():
        with pytest.raises(ConfigError, match=said):
            write_records(tmp_path / name, [record()])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.jsonl"]


@pytest.mark.parametrize(
    "changed",
    [
        {"scores": ()},
        {"scores": (2.0,)},
        {"answer": None},
        {"reference": TESTS},
        {"answer": None, "reference": {"x": 1}},
    ],
)
def test_records_that_cannot_be(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="record 'a'"):
        record(**changed)


def test_training_and_evaluation_share_nothing() -> None:
    training = {"a": user("What is\n 1 + 1?"), "b": user("Another?")}
    require_disjoint(training, [user("What is 1 + 2?")], "OUT")
    require_disjoint(training, [({"role": "system", "content": "x"}, *user("Another?"))], "OUT")
    with pytest.raises(ConfigError, match="1 of 2 training problems are also asked in OUT, the first is 'a'"):
        require_disjoint(training, [user(" What is 1 + 1? ")], "OUT")
