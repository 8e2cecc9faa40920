"""A reference behind a cache: each completion is scored once, whichever epoch, evaluation or run asks first."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from burnish.batching.layout import MicroBatch
from burnish.data.groups import PromptGroup
from burnish.device.ranks import Ranks
from burnish.models.logp_store import Logps, LogpStore, group_keys
from burnish.models.reference import ReferenceProvider
from burnish.scoring.scores import CompletionScores, join_scores


class CachedReference:
    """Answers from the store where it can, and asks the live reference for the rest of a micro-batch.

    What the live reference says stays on the device until a step's own copy to the host takes it along (`pending` and
    `settle`), or until `flush`: no micro-batch waits for a copy.
    """

    def __init__(self, live: ReferenceProvider | None, store: LogpStore, *, starts_as_policy: bool) -> None:
        """Put a store before a live reference.

        Args:
            live: None where every completion is in the store already.
            store: of this reference.
            starts_as_policy: whether the reference is the policy's own start, computed as the policy is: rewards then
                begin at 0.
        """
        self.live = live
        self.store = store
        self.starts_as_policy = starts_as_policy
        self._pending: dict[bytes, Tensor] = {}
        self._unshared: list[tuple[bytes, Logps]] = []
        self.scores_together: Ranks | None = None
        """Ranks that a live reference is spread over, which all must compute wherever one of them has to."""

    @torch.no_grad()
    def score(
        self,
        batch: MicroBatch,
        groups: Sequence[PromptGroup],
        lay_out: Callable[[list[PromptGroup]], MicroBatch],
        *,
        keep: bool = True,
        piecewise: bool = False,
    ) -> CompletionScores:
        """Score a micro-batch.

        Args:
            batch: on the device.
            groups: its groups, in order.
            lay_out: builds a micro-batch on the device from some of them.
            keep: False leaves the store to the rank whose groups these are.
            piecewise: score of a group what is missing alone, and not all of it once anything is missing. Cheaper, but
                rows other than the policy's round otherwise.
        """
        keys = [group_keys(group) for group in groups]
        missing = [[number for number, key in enumerate(group) if not self._knows(key)] for group in keys]
        if not piecewise:
            missing = [list(range(len(group))) if numbers else [] for group, numbers in zip(keys, missing, strict=True)]
        lacks = any(missing)
        if self.scores_together is not None and any(self.scores_together.agree([lacks])) and not lacks:
            assert self.live is not None
            self.live.score(batch)  # another rank has to, and its slices are not the whole model
        if not lacks:
            return _scores_of(self._known(keys, batch.num_counted.device), batch)
        if self.live is None:
            raise KeyError("a completion is not in the cache, and the reference has been unloaded")
        if all(len(numbers) == len(group) for numbers, group in zip(missing, keys, strict=True)):
            scores = self.live.score(batch)
            if keep:
                self._remember(keys, groups, scores.token_logps)
            return scores
        rest = [_only(group, numbers) for group, numbers in zip(groups, missing, strict=True) if numbers]
        fresh = self.live.score(lay_out(rest)).token_logps
        if keep:
            self._remember([group_keys(group) for group in rest], rest, fresh)
        return _scores_of(self._merge(keys, groups, missing, fresh), batch)

    def pending(self) -> Tensor | None:
        """(values,) what was scored and is not on the host yet, in one piece on the device; None where all is."""
        return torch.cat(list(self._pending.values())) if self._pending else None

    def settle(self, values: np.ndarray) -> None:
        """Take into the store what `pending` gave, copied to the host."""
        pending, self._pending = self._pending, {}
        ends = np.cumsum([len(value) for value in pending.values()])
        records = list(zip(pending, np.split(values, ends[:-1]), strict=True))
        self._unshared.extend(records)
        self.store.add(records)

    def take_pending(self) -> dict[bytes, Tensor]:
        """Forget what was scored and is not on the host yet, and give it by completion."""
        pending, self._pending = self._pending, {}
        return pending

    def put_pending(self, values: Mapping[bytes, Tensor]) -> None:
        """Remember what `take_pending` gave, as if it had just been scored."""
        for key, value in values.items():
            self._pending.setdefault(key, value)

    def flush(self) -> None:
        """Copy what was scored to the host and into the store."""
        pending = self.pending()
        if pending is not None:
            self.settle(pending.cpu().numpy())

    def exchange(self, ranks: Ranks) -> None:
        """Flush, and give all ranks what each has scored since the last time, so that nothing is scored twice.

        Every rank calls it at the same point. Each writes to the disk what it has scored itself.
        """
        self.flush()
        unshared, self._unshared = self._unshared, []
        for rank, records in enumerate(ranks.gather(unshared)):
            if rank != ranks.rank:
                self.store.add(records, on_disk=False)

    def covers(self, groups: Iterable[PromptGroup]) -> bool:
        """Whether every completion of these groups is in the store."""
        return all(key in self.store for group in groups for key in group_keys(group))

    def after_step(self, step: int) -> None:
        """Take note of a finished optimizer step (from 1); a reference that stands still ignores it."""
        return

    def state_tensors(self) -> dict[str, Tensor]:
        """What the reference's weights have become, for the checkpoint; empty where they stand still."""
        return {}

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state_tensors` gave."""
        return

    def unload(self) -> None:
        """Let the live reference go; its memory is free when nobody else holds it."""
        self.flush()
        self.live = None
        gc.collect()  # layers with forwards of their own hold themselves

    def _knows(self, key: bytes) -> bool:
        return key in self.store or key in self._pending

    def _remember(self, keys: list[list[bytes]], groups: Sequence[PromptGroup], token_logps: Tensor) -> None:
        sizes = [size for group in groups for size in counted_sizes(group)]
        for key, values in zip((key for group in keys for key in group), token_logps.split(sizes), strict=True):
            self._pending.setdefault(key, values)

    def _known(self, keys: list[list[bytes]], device: torch.device) -> Tensor:
        """Token log-probabilities of groups of which all is known, from the store or still on the device."""
        flat = [key for group in keys for key in group]
        stored = [self.store.get(key) for key in flat]
        whole = [value for value in stored if value is not None]
        if len(whole) == len(stored):
            return torch.from_numpy(np.concatenate(whole)).to(device)
        return torch.cat(
            [
                self._pending[key] if value is None else torch.tensor(value, device=device)
                for key, value in zip(flat, stored, strict=True)
            ]
        )

    def _merge(
        self, keys: list[list[bytes]], groups: Sequence[PromptGroup], missing: list[list[int]], fresh: Tensor
    ) -> Tensor:
        """Token log-probabilities of all groups in order, some from the store and some just scored."""
        sizes = [size for group in groups for size in counted_sizes(group)]
        is_new = [number in missing[i] for i, group in enumerate(keys) for number in range(len(group))]
        old = [key for key, new in zip((key for group in keys for key in group), is_new, strict=True) if not new]
        new_sizes = [size for size, new in zip(sizes, is_new, strict=True) if new]
        old_sizes = [size for size, new in zip(sizes, is_new, strict=True) if not new]
        new_parts = iter(fresh.split(new_sizes))
        old_parts = iter(self._known([old], fresh.device).split(old_sizes))
        return torch.cat([next(new_parts if new else old_parts) for new in is_new])


def _only(group: PromptGroup, numbers: Sequence[int]) -> PromptGroup:
    """A group with some of its completions."""
    return PromptGroup(
        prompt_ids=group.prompt_ids,
        completion_ids=tuple(group.completion_ids[number] for number in numbers),
        completion_mask=tuple(group.completion_mask[number] for number in numbers),
    )


def counted_sizes(group: PromptGroup) -> list[int]:
    """Counted tokens of each completion as the layout counts them: without a prompt, nothing predicts the first."""
    skipped = 0 if len(group.prompt_ids) else 1
    return [int(mask[skipped:].sum()) for mask in group.completion_mask]


def _scores_of(token_logps: Tensor, batch: MicroBatch) -> CompletionScores:
    """Scores from stored values; a reference's mean logits are not logged, so they are zeros."""
    values = token_logps.to(batch.num_counted.device)
    return join_scores(values, torch.zeros_like(values), batch)
