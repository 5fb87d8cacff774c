"""Prompts that end with a turn of the assistant: gone on with exactly, or refused, never answered as a new turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from backends._chat import Chat, prefix_of
from backends._prefill import BEGUN
from backends.hf import HF
from backends.mock import Mock
from pacore_lab.errors import RequestError
from pacore_lab.interfaces import Request
from pacore_lab.types import ChatMessage, Model, Prompt, SamplingParams
from tests.asking import X, asking, client
from tests.servers import Payload, RecordingServer

TINY = Path(__file__).parents[1] / "experiments/tiny_models/rlvr-tiny"
ASKED: ChatMessage = {"role": "user", "content": "What is 234 + 451? Put the final answer in \\boxed{}."}


def going_on(text: Any, **params: Any) -> Request:
    prompt: Prompt = (ASKED, {"role": "assistant", "content": text})
    return Request(id="r", prompt=prompt, params=SamplingParams(**params), seed=1)


@asynccontextmanager
async def tiny() -> AsyncIterator[HF]:
    running = HF(model=Model(name="tiny", path=str(TINY), dtype="float32"), device="cpu", threads=1)
    await running.start()
    try:
        yield running
    finally:
        await running.close()


async def test_a_greedy_answer_goes_on_alike_from_every_token() -> None:
    """A template that ends the turn, or a first token that merges with the prompt's last, gives another text."""
    async with tiny() as engine_:
        assert engine_.capabilities.prefill
        assert engine_._chat is not None
        tokenizer = engine_._chat.tokenizer
        whole = await engine_.complete(asking((ASKED,), temperature=0, max_tokens=40))

        def encoded(text: str) -> Any:
            return tokenizer(text, add_special_tokens=False)["input_ids"]

        pieces = encoded(whole.content)
        ended = whole.finish_reason == "stop"
        assert len(pieces) + ended == whole.generated_tokens > 20
        cuts = [cut for cut in range(len(pieces)) if encoded(tokenizer.decode(pieces[:cut])) == pieces[:cut]]
        assert len(cuts) > 0.9 * len(pieces)  # the text of the others has tokens that the model did not draw
        for cut in cuts:
            request = going_on(tokenizer.decode(pieces[:cut]), temperature=0, max_tokens=40 - cut)
            done = await engine_.complete(request)
            assert done.content == tokenizer.decode(pieces[cut:])
            assert (done.prompt_tokens, done.finish_reason) == (whole.prompt_tokens + cut, whole.finish_reason)


async def test_the_prompts_tokens_stay_its_own() -> None:
    """The published checkpoints' tokenizers make one token of two line breaks: that of the prompt would be gone."""
    fast = PreTrainedTokenizerFast(tokenizer_object=_merging())
    fast.chat_template = (
        "{% for m in messages %}{{ m['content'] }}|{% endfor %}{% if add_generation_prompt %}{{ '\\n' }}{% endif %}"
    )
    chat = Chat(Model(name="m"), fast, 400)
    opened = (await chat.render(asking((ASKED,)))).tokens
    assert fast.convert_ids_to_tokens(opened)[-1] == "Ċ"
    for text, pieces in (("\na", ["Ċ", "a"]), ("\n\na", ["Ċ", "Ċ", "a"]), ("a\n", ["a", "Ċ"]), ("", [])):
        rendered = await chat.render(going_on(text))
        assert rendered.tokens[: len(opened)] == opened
        assert fast.convert_ids_to_tokens(rendered.tokens[len(opened) :]) == pieces
    chat.close()


def _merging() -> Tokenizer:
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(models.BPE(vocab={**vocabulary, "ĊĊ": len(vocabulary)}, merges=[("Ċ", "Ċ")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


async def test_a_tokenizer_that_drops_blanks_is_refused() -> None:
    """Its decoder takes the first word's blank for its own: ' 42' after 'It is' would come back as '42'."""
    made = Tokenizer(models.BPE(vocab={"▁": 0, "a": 1, "b": 2, "c": 3, "?": 4}, merges=[], unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    fast = PreTrainedTokenizerFast(tokenizer_object=made)
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    chat = Chat(Model(name="m"), fast, 400)
    assert not chat.prefill
    with pytest.raises(RequestError, match=r"ends with an assistant's turn, which m cannot continue exactly"):
        await chat.render(going_on("a"))
    assert (await chat.render(asking((ASKED,)))).tokens
    chat.close()


@pytest.mark.parametrize("content", [None, [{"type": "text", "text": "a"}]])
def test_a_turn_that_is_no_text_is_refused(content: Any) -> None:
    with pytest.raises(RequestError, match="not one plain text"):
        prefix_of(going_on(content).prompt)
    split: Prompt = (ASKED, {"role": "assistant", "content": "b", "reasoning_content": "a"})
    with pytest.raises(RequestError, match="not one plain text"):
        prefix_of(split)


async def test_others_in_the_batch_keep_their_own_beginning() -> None:
    """Rows of one key share keys and values: the beginning is part of it."""
    texts = ["", "<think>\n", "<think>\n2", "4"] * 2
    async with tiny() as engine_:
        alone = [await engine_.complete(going_on(text, temperature=0, max_tokens=9)) for text in texts]
        together = await asyncio.gather(*(engine_.complete(going_on(t, temperature=0, max_tokens=9)) for t in texts))
    assert [done.content for done in together] == [done.content for done in alone]
    assert len({done.content for done in alone}) > 2


async def test_the_mock_answers_as_always() -> None:
    engine = Mock(model=Model(name="m"))
    assert engine.capabilities.prefill
    assert "boxed" in (await engine.complete(going_on("Let me"))).content


# ---- servers ----

GOING_ON: Prompt = (*X, {"role": "assistant", "content": "Let me"})


FIELDS = {
    "vllm": {"continue_final_message": True, "add_generation_prompt": False},
    "sglang": {"continue_final_message": True},
}


async def tokens(request: web.Request) -> Payload:
    """An engine's /tokenize: each character is a token. `strict` of the template arguments is a template that trims."""
    asked = await request.json()
    turns = asked.get("messages", [])
    text = asked.get("prompt", "") + "".join(f"<{turn['role']}>{turn['content']}" for turn in turns)
    if turns and not asked.get("continue_final_message"):
        text += "<assistant>"
    strict = asked.get("chat_template_kwargs", {}).get("strict")
    return {"tokens": [ord(c) for c in (text.strip() if strict else text)]}


def engine(owner: str, page: Any = tokens) -> RecordingServer:
    return RecordingServer(models=["m"], entry={"owned_by": owner}, pages={"/tokenize": page})


@pytest.mark.parametrize("owner", FIELDS)
async def test_a_server_is_asked_in_its_own_words(owner: str) -> None:
    async with engine(owner) as server, client(server, probe=True) as backend_:
        assert backend_.capabilities.prefill
        assert "continues an assistant's turn" in backend_.capabilities.evidence["prefill"]
        await backend_.complete(asking(GOING_ON))
        await backend_.complete(asking())
    begun, other = server.requests[-2:]
    assert begun["messages"] == list(GOING_ON)
    assert {key: begun[key] for key in ("continue_final_message", "add_generation_prompt") if key in begun} == FIELDS[
        owner
    ]
    assert not {"continue_final_message", "add_generation_prompt"} & set(other)


@pytest.mark.parametrize(
    ("owner", "page", "reason"),
    [
        ("vllm", lambda _: _given({"tokens": [1]}), "its chat template rewrites an assistant's turn"),
        ("sglang", lambda _: _given({"tokens": []}), "not shown by /tokenize: it gives no tokens"),
        ("vllm", lambda _: _given([7]), "not shown by /tokenize: list indices"),
        ("vllm", lambda _: _given(web.Response(status=404, text="none")), r"not shown by /tokenize: .* 404 none"),
        ("sglang", lambda _: _given(web.Response(text="<html>")), "not shown by /tokenize: "),
        ("llamacpp", tokens, "not known for this engine"),
        ("", tokens, "not known for this engine"),
    ],
)
async def test_a_server_that_does_not_is_refused(owner: str, page: Any, reason: str) -> None:
    """A finished turn and a new one would be an answer to something else."""
    async with engine(owner, page) as server, client(server, probe=True) as backend_:
        assert not backend_.capabilities.prefill
        count = len(server.requests)
        with pytest.raises(RequestError, match=rf"ends with an assistant's turn, .*{reason}"):
            await backend_.complete(asking(GOING_ON))
        assert len(server.requests) == count
        await backend_.complete(asking())


async def _given(what: Any) -> Any:
    return what


async def test_the_template_is_asked_with_the_runs_own_arguments() -> None:
    """Whether an assistant's turn is rewritten is often an option of the template."""
    model = Model(name="m", chat_template_kwargs={"strict": True})
    async with engine("vllm") as server, client(server, probe=True, model=model) as backend_:
        assert backend_.capabilities.evidence["prefill"] == "its chat template rewrites an assistant's turn"


async def test_servers_that_go_on_differently_are_refused() -> None:
    async with engine("vllm") as one, engine("sglang") as other, client([one, other], probe=True) as backend_:
        assert not backend_.capabilities.prefill
        with pytest.raises(RequestError, match="cannot continue one"):
            await backend_.complete(asking(GOING_ON))


async def test_without_the_probe_it_is_sent_as_it_is() -> None:
    """As the published client sends a problem that ends so; what needs a prefill is refused by the capability."""
    async with engine("vllm") as server, client(server) as backend_:
        assert not backend_.capabilities.prefill
        await backend_.complete(asking(GOING_ON))
    assert set(server.requests[0]) == {"model", "messages", "temperature", "top_p", "seed"}


def test_what_templates_rewrite_is_asked_about() -> None:
    assert "</think>" in BEGUN
    assert BEGUN.endswith(" ")
