"""The shipped checkpoint: loads, reads any text, renders conversations, and answers in the expected form."""

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.tiny_models.scratch import work_out
from pacore_lab.problems.arithmetic import Arithmetic

FOLDER = Path(__file__).parents[1] / "experiments" / "tiny_models" / "rlvr-tiny"
transformers = pytest.importorskip("transformers")


# One load for all: hypothesis does not take function-scoped fixtures.
@cache
def load_tokenizer():
    return transformers.AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture
def tokenizer():
    return load_tokenizer()


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_tokenizer_gives_back_any_text(text):
    """Guards against a vocabulary that loses what a real problem or a hostile response may hold."""
    tokenizer = load_tokenizer()
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text
    assert max(ids, default=0) < len(tokenizer)


def test_digits_are_single_tokens_and_think_marks_survive_decoding(tokenizer):
    """skip_special_tokens must keep the think marks: the conclusion is what comes after </think>."""
    text = "<think>\n907\n</think>\n\n\\boxed{12}<|im_end|>"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text.removesuffix("<|im_end|>")
    assert len(tokenizer("1234567890").input_ids) == 10


def test_chat_template_renders_every_kind_of_turn(tokenizer):
    """Guards against dropped system turns, history or list content, which would change the prompt silently."""
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [{"type": "text", "text": "1 +"}, {"type": "text", "text": " 2?"}]},
        {"role": "assistant", "content": "<think>\nx\n</think>\n\n3"},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "4"},
    ]
    body = (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n1 + 2?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nx\n</think>\n\n3<|im_end|>\n<|im_start|>user\nagain<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>\n"
    )
    assert tokenizer.apply_chat_template(turns, tokenize=False) == body
    with_prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert with_prompt == body + "<|im_start|>assistant\n"


def test_folder_is_small_and_holds_a_plain_qwen3():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 16 * 2**20
    config = transformers.AutoConfig.from_pretrained(FOLDER)
    assert config.architectures == ["Qwen3ForCausalLM"]
    assert config.max_position_embeddings == 4096


def test_greedy_answers_have_a_thought_and_a_boxed_conclusion(tokenizer):
    model = transformers.AutoModelForCausalLM.from_pretrained(FOLDER).eval()
    for problem in Arithmetic(n=2).load():
        prompt = tokenizer.apply_chat_template(problem.messages, tokenize=False, add_generation_prompt=True)
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=320, do_sample=False)[0, inputs.input_ids.shape[1] :]
        response = tokenizer.decode(output, skip_special_tokens=True)
        assert response.startswith("<think>\n")
        assert r"\boxed{" in response.split("</think>")[-1]
        assert output[-1] == tokenizer.eos_token_id


@settings(max_examples=200, deadline=None)
@given(a=st.integers(0, 10**14), b=st.integers(0, 10**14), factor=st.integers(0, 99))
def test_the_worked_solutions_it_learned_from_are_right(a, b, factor):
    """A slip in the scratch would be learned, and would look like a limit of the model."""
    for operation, x, y, value in (("add", a, b, a + b), ("sub", a, b, a - b), ("mul", a, factor, a * factor)):
        thought, answer = work_out(operation, x, y)
        assert answer == value
        last = thought.splitlines()[-1]
        assert int("".join(character for character in last if not character.isalpha())) == value
