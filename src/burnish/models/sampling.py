"""Greedy completions of a few prompts, without disturbing the training around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from burnish.models.adapters import has_adapter
from burnish.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def generate_samples(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts_ids: list[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    generate: Callable[..., Tensor] | None = None,
) -> list[str]:
    """Continue each prompt with the likeliest token until the end of the turn.

    Plain greedy decoding: temperature, repetition penalty and the like in the model's generation config are not used,
    so that before and after compare the weights alone. Modes, random state and configs are left as they were.

    Args:
        model: a transformers model or a peft model, on its device.
        tokenizer: decodes, and knows the end and padding tokens.
        prompts_ids: token ids of each prompt, not empty.
        max_new_tokens: longest completion, in tokens; ≥ 1.
        batch_size: prompts continued at once; they are batched by length, and padded on the left.
        generate: stands in for the model's own, where its weights are spread over ranks; all ranks then call this.

    Returns:
        The completions' text in the order of the prompts, special tokens left out.
    """
    plain: Any = model.get_base_model() if has_adapter(model) else model  # pyright: ignore[reportCallIssue]
    order = sorted(range(len(prompts_ids)), key=lambda index: len(prompts_ids[index]))
    texts = [""] * len(prompts_ids)
    with _undisturbed(model), _greedy(plain, tokenizer, max_new_tokens):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            ids, mask = _pad_left([prompts_ids[index] for index in batch], _padding_id(tokenizer), plain.device)
            generated = (generate or plain.generate)(input_ids=ids, attention_mask=mask)[:, ids.shape[1] :]
            for index, text in zip(batch, tokenizer.batch_decode(generated, skip_special_tokens=True), strict=True):
                texts[index] = text
    return texts


def _padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(padding) if isinstance(padding, int) else 0


def _pad_left(prompts: list[list[int]], padding: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = [[padding] * (longest - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Eval mode, no gradients, random state of the CPU forked; greedy decoding draws nothing on accelerators."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), quiet_transformers():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _greedy(model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> Iterator[None]:
    """Put a bare greedy config in the place of the model's own, which would fill in whatever is not said."""
    from transformers import GenerationConfig

    own = model.generation_config
    own_ends = own.eos_token_id if own is not None else None
    ends: set[int] = {own_ends} if isinstance(own_ends, int) else set(own_ends or ())
    if isinstance(tokenizer.eos_token_id, int):
        ends.add(tokenizer.eos_token_id)
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=_padding_id(tokenizer),
        use_cache=True,
    )
    try:
        yield
    finally:
        model.generation_config = own
