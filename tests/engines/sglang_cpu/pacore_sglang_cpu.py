"""An SGLang plug-in (its entry point `sglang.srt.plugins`): seeds per request with plain torch attention.

SGLang allows deterministic inference with attention backends of GPUs only, and replaces torch's matrix products by
batch-invariant kernels of Triton's, which a CPU does not have.
"""


def install() -> None:
    from sglang.srt import batch_invariant_ops
    from sglang.srt.arg_groups.choices import add_deterministic_attention_backend_choices

    add_deterministic_attention_backend_choices(["torch_native"])
    batch_invariant_ops.enable_batch_invariant_mode = lambda *_, **__: None
