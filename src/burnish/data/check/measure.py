"""What is measured of each example before it is cut: lengths of its parts, words, and how its completions end."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from burnish.data.check.lengths import LengthBias, Lengths, describe_lengths, length_bias
from burnish.data.examples import Example
from burnish.data.kinds import GroupKind
from burnish.data.tokenise import Encoded

END_TOKENS = 3
"""Last tokens of a completion among which its end-of-turn token is looked for; a line break may follow it."""
Length = Callable[[list[int]], int]


def _integers() -> array[int]:
    return array("q")


@dataclass(slots=True)
class Measure:
    """Collects figures of examples as they are encoded; 8 bytes a length."""

    kind: GroupKind
    length: Length = len
    """Counts the units of some ids: tokens, or characters."""
    words: Length | None = None
    """Counts the words of some ids, where ids are characters."""
    special_ids: frozenset[int] = frozenset()
    prompts: array[int] = field(default_factory=_integers)
    parts: dict[str, array[int]] = field(default_factory=dict)
    """Name of a part (chosen, rejected, …) → its lengths."""
    wholes: array[int] = field(default_factory=_integers)
    """Prompt plus longest completion."""
    total_words: int = 0
    ends: Counter[int] = field(default_factory=Counter)
    """Id of the end-of-turn token of conversations' completions → completions; -1 for none."""
    first: Encoded | None = None
    """The first example, to be shown."""
    first_example: Example | None = None

    def __call__(self, example: Example, encoded: Encoded) -> None:
        """Measure one example."""
        if self.first is None:
            self.first, self.first_example = encoded, example
        prompt = self.length(encoded.prompt_ids)
        lengths = [self.length(ids) for ids in encoded.completion_ids]
        self.prompts.append(prompt)
        self.wholes.append(prompt + max(lengths, default=0))
        for name, length in self._named(example, lengths):
            self.parts.setdefault(name, _integers()).append(length)
        if self.words is not None:
            self.total_words += sum(map(self.words, (encoded.prompt_ids, *encoded.completion_ids)))
        if example.layout == "conversational":
            self.ends.update(self._end(ids) for ids in encoded.completion_ids)

    def _named(self, example: Example, lengths: list[int]) -> list[tuple[str, int]]:
        if self.kind == "preference":
            return list(zip(("chosen", "rejected"), lengths, strict=False))
        if self.kind == "unpaired":
            return [("desirable" if example.label else "undesirable", length) for length in lengths]
        if self.kind == "ranking":
            ranks = example.ranking or tuple(range(len(lengths)))
            ordered = [length for _, length in sorted(zip(ranks, lengths, strict=True), key=lambda pair: pair[0])]
            return [("best", ordered[0]), ("worst", ordered[-1])]
        return [("completion", length) for length in lengths]

    def _end(self, ids: list[int]) -> int:
        return next((value for value in reversed(ids[-END_TOKENS:]) if value in self.special_ids), -1)

    def lengths(self) -> dict[str, Lengths]:
        """Describe each part that has a length."""
        found = {"prompt": self.prompts, **self.parts, "whole row": self.wholes}
        described = {name: describe_lengths(np.asarray(values, np.int64)) for name, values in found.items()}
        return {name: lengths for name, lengths in described.items() if lengths is not None}

    def bias(self) -> LengthBias | None:
        """Compare better with worse completions; None where rows hold one completion."""
        for better, worse in (("chosen", "rejected"), ("best", "worst")):
            if better in self.parts:
                return length_bias(*(np.asarray(self.parts[name], np.int64) for name in (better, worse)))
        return None

    def longest(self) -> int:
        """Return the least max_length that cuts nothing."""
        return max(self.wholes, default=0)
