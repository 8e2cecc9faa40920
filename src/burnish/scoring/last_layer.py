"""The last layer, computed only where its output is used.

Behind the last layer's attention no position reads another: norm, MLP and the attention's output projection of a
position serve its own logits alone, and only the positions that predict counted tokens have logits. So the last layer
goes on with these positions: no product, activation or gradient for the prompt's others. Values and gradients are those
of the whole layer (tests/scoring/test_last_layer.py).

Where the layer's class is not known, it stays as it is.
"""

from __future__ import annotations

import types
from typing import Any

from torch import Tensor, nn

KEPT = "kept_positions"
"""Keyword of the decoder's forward that names the positions: (kept,) int64, flat indices into rows x length."""
LAYERS = frozenset(
    {
        "LlamaDecoderLayer",
        "Qwen2DecoderLayer",
        "Qwen3DecoderLayer",
        "MistralDecoderLayer",
        "GraniteDecoderLayer",
        "SmolLM3DecoderLayer",
    }
)
"""Classes that compute h = x + r · o(attention(norm(x))), then h + r · mlp(norm(h)), r = 1 or residual_multiplier."""
_ATTENTIONS = frozenset({"sdpa", "eager", "burnish_tree", "burnish_flex", "burnish_npu"})
"""Attentions that ignore keywords which they do not know."""


def trim_last_layer(decoder: nn.Module) -> bool:
    """Let a decoder's last layer take `kept_positions`; say whether it does. Idempotent.

    With them, the decoder gives hidden states of (1, kept, hidden size), in their order, repeated ones repeated.
    """
    config: Any = getattr(decoder, "config", None)
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not len(layers):
        return False
    last = layers[-1]
    if type(last).__name__ not in LAYERS or getattr(config, "_attn_implementation", None) not in _ATTENTIONS:
        return False
    if "forward" not in vars(last):
        last.forward = types.MethodType(_forward, last)
    return getattr(last.forward, "__func__", None) is _forward


def _forward(self: Any, hidden_states: Tensor, *args: Any, kept_positions: Tensor | None = None, **kwargs: Any) -> Any:
    if kept_positions is None:
        return type(self).forward(self, hidden_states, *args, **kwargs)

    def keep(states: Tensor) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        if rows.device.type != "cpu":
            rows = rows.float()  # the gradient is an index_add, which NPUs do not have for bfloat16
        return rows.index_select(0, kept_positions).to(states.dtype)[None]

    scale = getattr(self, "residual_multiplier", 1.0)
    # The attention's output projection is inside it: what enters is cut there.
    hook = self.self_attn.o_proj.register_forward_pre_hook(lambda _, inputs: (keep(inputs[0]),))
    try:
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
    finally:
        hook.remove()
    hidden = keep(hidden_states) + _scaled(attended, scale)
    return hidden + _scaled(self.mlp(self.post_attention_layernorm(hidden)), scale)


def _scaled(states: Tensor, scale: float) -> Tensor:
    return states if scale == 1.0 else states * scale
