"""The tokenizer of the tiny models: byte-level BPE, Qwen3's special tokens and a ChatML template.

A number of one or two digits is one token, together with a space before it, and so is a capital letter on its own; the
digits of longer numbers are separate tokens. Other text merges across spaces, so the fixed phrases of the prompts cost
next to nothing.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
THINK, END_THINK = "<think>", "</think>"

# Content is a string or a list of text parts. No turn is changed or dropped, so the input can be read back.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"""


def build_tokenizer(texts: Iterable[str], *, vocab_size: int = 1024, context: int = 4096) -> PreTrainedTokenizerFast:
    """Learn merges from `texts`. Any Unicode text encodes (all bytes are in the vocabulary) and decodes to itself."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?(?<!\d)\d{1,2}(?!\d)|\d| ?\b[A-Z]\b"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 5, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, START, END)])
    # As in Qwen3, the think marks are ordinary added tokens: skip_special_tokens must not remove them.
    bpe.add_tokens([AddedToken(token, special=False, normalized=False) for token in (THINK, END_THINK)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
