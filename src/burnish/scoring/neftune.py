"""NEFTune: uniform noise on the input embeddings while training.

Source: Jain et al., 2310.05914: noise from U(-1, 1) times α / sqrt(L d), L the tokens of the sequence, d the hidden
size. Differs from transformers in L: there it is the padded length of the batch, here that of the example alone, so
that neither padding nor packing changes the noise's size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from burnish.batching.layout import PADDING, MicroBatch


@contextmanager
def noisy_embeddings(model: nn.Module, batch: MicroBatch, alpha: float) -> Iterator[None]:
    """Add noise to what the model's input embeddings give, within the block.

    Args:
        model: a transformers model.
        batch: what is embedded.
        alpha: NEFTune's α, > 0.
    """
    embeddings: Any = model.get_input_embeddings()  # pyright: ignore[reportCallIssue]
    lengths = example_lengths(batch)

    def add_noise(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        scale = alpha / (lengths * output.shape[-1]).sqrt()
        return output + torch.empty_like(output).uniform_(-1, 1) * scale[..., None].to(output.dtype)

    handle = embeddings.register_forward_hook(add_noise)
    try:
        yield
    finally:
        handle.remove()


def example_lengths(batch: MicroBatch) -> Tensor:
    """Tokens that each token's example has: of its own segment where a row holds several examples, else of its row.

    Returns:
        (rows, length) float32; 1 where there is padding.
    """
    segments = batch.segment_ids
    is_token = segments != PADDING
    if batch.trees is not None:
        sizes = torch.tensor([tree.num_tokens for tree in batch.trees], device=segments.device)
        return sizes.repeat_interleave(sizes, output_size=segments.shape[1])[None].float()
    if batch.has_segments:
        lengths = (segments[:, :, None] == segments[:, None, :]).sum(dim=2)
    else:
        lengths = is_token.sum(dim=1, keepdim=True).expand_as(segments)
    return torch.where(is_token, lengths, 1).float()
