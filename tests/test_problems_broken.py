"""Copies of the published sets that are broken, or of another shape: one line names the file and the row."""

import pytest

from pacore_lab.errors import DataError
from pacore_lab.problems import AIME2025, IMOAnswerBench, LiveCodeBench, PaCoReTrain8k
from tests.published import TURNS, aime, by_name, code, multi, train, write

pytestmark = pytest.mark.usefixtures("datasets_of_its_own")


@pytest.mark.parametrize("kind", [".parquet", ".jsonl", ".json", ".csv"])
def test_a_wrong_column_is_one_line(kind, tmp_path):
    path = write(tmp_path / f"a{kind}", [{"problem_idx": 1, "question": "?", "answer": "1"}])
    with pytest.raises(DataError) as caught:
        AIME2025(path=str(path)).load()
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "there is no column 'problem'; the columns are problem_idx, question, answer" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "content", "wrong"),
    [
        ("a.jsonl", "", "a.jsonl: the file is empty"),
        ("a.jsonl", "\n \n", "a.jsonl: holds no rows"),
        ("a.json", "[]", "a.json: holds no rows"),
        ("a.csv", "problem_idx,problem,answer\n", "a.csv: holds no rows"),
        ("a.json", "{", "a.json: not JSON"),
        ("a.json", "{}", "a.json: not a JSON list"),
        ("a.json", "[1]", "a.json: row 1: ValueError: a JSON int, not an object"),
        ("a.jsonl", '{"problem_idx": 1,', "a.jsonl:1: JSONDecodeError"),
        ("a.jsonl", "[" * 100_000, "a.jsonl:1: RecursionError"),
        ("a.jsonl", "[1]", "a.jsonl:1: ValueError: a JSON list, not an object"),
        ("a.parquet", "PAR1 but no more", "a.parquet: not a parquet file"),
        ("a.txt", "x", "a.txt: not a .parquet, .jsonl, .json, .csv file"),
        ("a.jsonl", '{"problem_idx": 1, "problem": "?", "answer": ""}', "a.jsonl:1: answer is ''"),
        ("a.jsonl", '{"problem_idx": 1, "problem": "?", "answer": null}', "a.jsonl:1: answer is missing"),
        ("a.jsonl", '{"problem_idx": 1, "problem": "?", "answer": true}', "a.jsonl:1: answer is True"),
        ("a.jsonl", '{"problem_idx": 1, "problem": "?", "answer": [1]}', "a.jsonl:1: answer is [1]"),
        ("a.jsonl", '{"problem_idx": 1, "problem": "\\ud800", "answer": 1}', "a.jsonl:1: problem holds half of a"),
        ("a.csv", "problem_idx,problem,answer\n1,?,1\n2,?\n", "a.csv: row 2: answer is missing"),
        (
            "a.jsonl",
            '{"problem_idx": 1, "problem": "?", "answer": 1}\n' * 2,
            "a.jsonl:2: id 'aime_2025-1' is already used at ",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_broken_file_is_one_line(name, content, wrong, tmp_path):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        AIME2025(path=str(path)).load()
    assert str(caught.value).startswith(f"{tmp_path}/{wrong}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 350 + 3 * len(str(path))


def test_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"problem": "\xff"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl: cannot be read \(UnicodeDecodeError"):
        AIME2025(path=str(tmp_path / "a.jsonl")).load()


def test_a_path_that_is_not_there_and_folders_without_an_answer(tmp_path):
    with pytest.raises(DataError, match="no such file or folder; set problems.path"):
        AIME2025(path=str(tmp_path / "none")).load()
    with pytest.raises(DataError, match="holds no .parquet, .jsonl, .json, .csv file"):
        AIME2025(path=str(tmp_path)).load()
    write(tmp_path / "a.csv", [aime(1)])
    write(tmp_path / "a.jsonl", [aime(1)])
    with pytest.raises(DataError, match="holds .csv and .jsonl files; set problems.path to the one to read"):
        AIME2025(path=str(tmp_path)).load()


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (multi(1, conversation=[]), "conversation is not a list of turns"),
        (multi(1, conversation=TURNS[:2]), "conversation does not end with a user's turn"),
        (multi(1, conversation=[{"role": "robot", "content": "x"}]), "conversation[0] needs a text as content"),
        (multi(1, conversation=[{"role": "user", "content": "\ud800"}]), "conversation[0] holds half of a surrogate"),
        (multi(1, conversation="{"), "conversation is not JSON: '{'"),
        (multi(1, pass_criteria="MAYBE"), "pass_criteria is 'MAYBE'; give YES or NO"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_conversation_is_named_by_row(row, wrong, tmp_path):
    write(tmp_path / "a.json", [multi(0), row])
    with pytest.raises(DataError) as caught:
        by_name("multichallenge", f"problems.path={tmp_path}/a.json").load()
    assert str(caught.value).startswith(f"{tmp_path}/a.json: row 2: {wrong}")


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({"contest_date": "soon"}, "contest_date is 'soon'"),
        ({"metadata": "[]"}, "metadata is not a JSON object"),
        ({"metadata": '{"func_name": 1}'}, "metadata.func_name is not a text"),
        ({"question_content": ""}, "question_content is ''"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bad_row_of_livecodebench_is_named(changed, wrong, tmp_path):
    write(tmp_path / "a.json", [code(1, **changed)])
    with pytest.raises(DataError) as caught:
        LiveCodeBench(path=str(tmp_path / "a.json")).load()
    assert str(caught.value).startswith(f"{tmp_path}/a.json: row 1: {wrong}")


@pytest.mark.parametrize("truth", [None, True, "", {"cases": 1}, {"inputs": ["1"], "outputs": []}, [{"input": "1"}]])
def test_a_ground_truth_that_is_none(truth, tmp_path):
    write(tmp_path / "a.json", [train(truth)])
    with pytest.raises(DataError, match=r"a\.json: row 1: ground_truth "):
        PaCoReTrain8k(path=str(tmp_path / "a.json")).load()


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        (lambda: PaCoReTrain8k(), "problems.revision is not set; name a commit of stepfun-ai/PaCoRe-Train-8k"),
        (lambda: PaCoReTrain8k(path="x", stage=3), "problems.stage is 3; give 1 or 2"),
        (lambda: IMOAnswerBench(version=3), "problems.version is 3; give 1"),
        (lambda: AIME2025(path=5), "problems.path is 5; name a file"),
        (lambda: AIME2025(revision=""), "problems.revision is ''; give a commit"),
    ],
)
def test_bad_arguments(make, wrong):
    with pytest.raises(ValueError, match="^" + wrong):
        make()
