"""Which reference a run has, and the cache before it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from burnish.console import notice
from burnish.data.groups import PromptGroup
from burnish.data.store import GroupStore
from burnish.device.ranks import Ranks
from burnish.engine.method import Method
from burnish.errors import ConfigError, DataError
from burnish.models.adapters import has_adapter
from burnish.models.cached_reference import CachedReference
from burnish.models.logp_store import LogpStore
from burnish.models.moving_reference import MovingReference
from burnish.models.reference import AdapterOffReference, FrozenReference, ReferenceProvider, copy_of_start
from burnish.objectives.moving_reference import check_moving_reference
from burnish.scoring.scorer import Scorer

_ALL_KNOWN = "reference: every completion is in the cache; no reference model is loaded"


def has_given_reference(config: Any, method: Method, stores: Sequence[GroupStore]) -> bool:
    """Whether the rows bring the reference's log-probabilities, so that none is loaded; a line says if in vain.

    Raises:
        DataError: only some rows bring them.
        ConfigError: a setting needs what sums over completions do not tell.
    """
    if not any(groups.has("ref_logps") for groups in stores):
        return False
    if not method.needs_reference or method.scores_other_groups:
        scores = "the reference scores other completions too"
        why = scores if method.needs_reference else "no reference is compared with"
        notice(f"the rows' ref_chosen_logps and ref_rejected_logps are not used: {why}")
        return False
    if not all(groups.all_have("ref_logps") for groups in stores):
        raise DataError(
            "some rows of training or evaluation have no ref_chosen_logps and ref_rejected_logps, and others have: "
            "give them to all, or to none"
        )
    if config.ref_model_name_or_path is not None:
        raise ConfigError(
            "--ref_model_name_or_path: the rows bring ref_chosen_logps and ref_rejected_logps, which are used instead; "
            "leave one of the two out"
        )
    by_token = [name for name in ("ld_alpha", "sync_ref_model") if getattr(config, name, None) not in (None, False)]
    by_token += ["token weights"] * any(groups.has("token_weights") for groups in stores)
    if by_token:
        raise ConfigError(
            f"{' and '.join(by_token)} needs a reference model, and the rows bring ref_chosen_logps: leave one out"
        )
    return True


def build_reference(
    config: Any,
    scorer: Scorer,
    other: nn.Module | None,
    groups: Iterable[PromptGroup] | None,
    identity: Mapping[str, str],
    ranks: Ranks,
) -> CachedReference:
    """Put a cache before the reference; where it holds every group, no reference model is made.

    Args:
        config: settings of models.
        scorer: the policy's, on its device.
        other: a reference model of its own, or None for the policy's start.
        groups: all groups of training and evaluation; None where the run scores others besides.
        identity: whatever else the reference's log-probabilities depend on: weights, precision, device kind.
        ranks: agree on whether a model is needed.
    """
    dtype = reference_dtype(config)
    starts_as_policy = other is None and dtype in (None, torch.float32)
    described = _describe_reference(config, scorer, identity)
    store = LogpStore(_store_folder(config, described), described)
    cached = CachedReference(None, store, starts_as_policy=starts_as_policy)
    moves = getattr(config, "sync_ref_model", False)
    is_known = not moves and groups is not None and _knows_all(cached, groups)
    if not any(ranks.agree([not is_known])):
        notice(_ALL_KNOWN)
        return cached
    cached.live = _live_reference(scorer, other, dtype)
    if not moves:
        return cached
    alpha, every = config.ref_model_mixup_alpha, config.ref_model_sync_steps
    check_moving_reference(alpha=alpha, every=every, uses_adapter=has_adapter(scorer.model))
    return MovingReference(cached, scorer.model, alpha=alpha, every=every)


def let_go_if_known(reference: CachedReference | None, method: Method, stores: Sequence[GroupStore]) -> None:
    """Let a live reference go where the cache holds every group, which was not known when it was made."""
    asks_live = reference is not None and reference.live is not None and not method.scores_other_groups
    if reference is not None and asks_live and _knows_all(reference, chain.from_iterable(stores)):
        notice(_ALL_KNOWN)
        reference.unload()


def _knows_all(cached: CachedReference, groups: Iterable[PromptGroup]) -> bool:
    return len(cached.store) > 0 and cached.covers(groups)


def reference_dtype(config: Any) -> torch.dtype | None:
    """What the reference's weights are stored in; None as the policy's, or where the method has no reference."""
    name = getattr(config, "ref_dtype", None)
    return None if name is None else getattr(torch, name)


def _live_reference(scorer: Scorer, other: nn.Module | None, dtype: torch.dtype | None) -> ReferenceProvider:
    """Another model, the adapter switched off, or a frozen copy of the start."""
    if other is None and has_adapter(scorer.model):
        return AdapterOffReference(scorer)
    model = copy_of_start(scorer.model, dtype) if other is None else other.to(dtype=dtype)
    frozen = Scorer(model, head_path=scorer.head_path)
    return FrozenReference(frozen.to(next(scorer.parameters()).device))


def _describe_reference(config: Any, scorer: Scorer, identity: Mapping[str, str]) -> str:
    """All that the reference's log-probabilities depend on besides the completion, in one line."""
    described = {
        **identity,
        "storage": str(config.ref_dtype),
        "attention": str(getattr(scorer.model.config, "_attn_implementation", "")),
        "head": scorer.head_path.value,
    }
    return json.dumps(described, sort_keys=True)


def _store_folder(config: Any, described: str) -> Path | None:
    """The folder of one reference computed one way; None keeps values in memory."""
    if config.reference_cache == "memory":
        return None
    name = hashlib.sha256(described.encode()).hexdigest()[:32]
    root = config.reference_cache_dir or os.environ.get("BURNISH_CACHE", "~/.cache/burnish")
    parent = Path(root).expanduser() / ("" if config.reference_cache_dir else "reference")
    return parent / name
