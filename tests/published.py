"""Rows of the published sets, as their files have them, and files of every kind to write them to."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate

from pacore_lab.config import schema  # noqa: F401  (registers the schema of the root keys)

CONF = Path(__file__).parents[1] / "conf"
TURNS = [
    {"role": "user", "content": "Be brief. Hi?"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "And now?"},
]


def aime(n: int, answer: object = 70) -> dict:
    return {"problem_idx": n, "problem": f"Find {n}, é\u2028.", "answer": answer}


def code(n: int, **changed: object) -> dict:
    case = {"input": f"{n}\n", "output": "ok\n", "testtype": "stdin"}
    return {
        "question_title": "A",
        "question_content": f"Say ok {n}.",
        "platform": "atcoder",
        "question_id": f"abc{n}",
        "contest_id": "abc",
        "contest_date": "2024-09-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([case]),
        "private_test_cases": json.dumps([case | {"input": "private"}]),
        "metadata": "{}",
        **changed,
    }


def imo(n: int) -> dict:
    return {
        "Problem ID": f"imo-bench-algebra-{n:03}",
        "Problem": 'Say "a,\nb".\n',
        "Short Answer": "007",
        "Category": "Algebra",
        "Subcategory": "Operation",
        "Source": "IMO Shortlist 2021",
    }


def hle(n: int, image: object = "") -> dict:
    return {
        "id": f"66{n}",
        "question": f"Why {n}?",
        "image": image,
        "answer": "3.10",
        "answer_type": "exactMatch",
        "rationale": "",
        "raw_subject": "Algebra",
        "category": "Math",
    }


def multi(n: int, **changed: object) -> dict:
    return {
        "question_id": f"q{n}",
        "axis": "INFERENCE_MEMORY",
        "conversation": TURNS,
        "target_question": "Is it?",
        "pass_criteria": "YES",
        **changed,
    }


def train(truth: object) -> dict:
    return {"conversation": TURNS[:1], "responses": ["a", "b"], "ground_truth": truth}


ROWS = {
    "aime_2025": [aime(1, 70), aime(2, 7)],
    "hmmt_feb_2025": [aime(1, "\\frac{1}{2}") | {"problem_type": ["Algebra", "Geometry"]}],
    "apex_2025": [aime(1, "1/2") | {"source": "Turkey MO"}],
    "imo_answerbench": [imo(1), imo(2)],
    "livecodebench": [code(1), code(2)],
    "hle_text": [hle(1), hle(2)],
    "multichallenge": [multi(1), multi(2)],
    "pacore_train_8k_stage1": [train("7"), train("\\{1, 2\\}")],
    "pacore_train_8k_stage2": [train("7")],
}


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        case ".jsonl":
            path.write_text("\ufeff\n" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
        case ".json":
            path.write_text(json.dumps(rows), "utf-8")
        case ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                nested = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
                writer.writerows(nested)
    return path


def by_name(name: str, *overrides: str) -> object:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", [f"problems={name}", *overrides])
    return instantiate(composed.problems, _convert_="all")
