"""What became of every row: counted by kind, in one line and in data_report.json."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from burnish.data.rows import Place

Fate = Literal["rejected", "dropped", "cut", "noted"]

KINDS: dict[str, tuple[Fate, str, str]] = {
    "bad_row": ("rejected", "unusable row", "unusable rows"),
    "empty_completion": ("dropped", "empty completion", "empty completions"),
    "identical_pair": ("dropped", "identical pair", "identical pairs"),
    "overlong_prompt": ("dropped", "over-long prompt", "over-long prompts"),
    "overlong_completion": ("dropped", "over-long completion", "over-long completions"),
    "too_long": ("dropped", "row longer than max_length", "rows longer than max_length"),
    "nothing_counted": ("dropped", "row with a completion that has nothing to count", "rows with nothing to count"),
    "empty_prompt": ("dropped", "empty prompt", "empty prompts"),
    "tie": ("dropped", "tie", "ties"),
    "completion_cut": ("cut", "row's completions", "rows' completions"),
    "prompt_trimmed": ("cut", "prompt's start", "prompts' starts"),
    "prompt_not_prefix": (
        "noted",
        "prompt that the chat template writes otherwise before a completion",
        "prompts that the chat template writes otherwise before a completion",
    ),
    "prompt_merged": (
        "noted",
        "prompt whose last token merges with the completion",
        "prompts whose last token merges with the completion",
    ),
    "no_end_token": (
        "noted",
        "row without an end-of-turn token after a completion",
        "rows without an end-of-turn token after a completion",
    ),
    "odd_characters": ("noted", "row with U+0000 or U+FFFD", "rows with U+0000 or U+FFFD"),
    "blank_prompt": ("noted", "row whose prompt has no words", "rows whose prompt has no words"),
    "turn_changed": (
        "noted",
        "row with a turn that the chat template leaves out or changes",
        "rows with a turn that the chat template leaves out or changes",
    ),
    "thinking_added": (
        "noted",
        "row to which the chat template adds <think>",
        "rows to which the chat template adds <think>",
    ),
    "special_in_text": (
        "noted",
        "conversation whose words hold a special token",
        "conversations whose words hold a special token",
    ),
    "duplicate_id": ("noted", "row whose id another row has too", "rows whose id another row has too"),
    "duplicate_row": ("noted", "duplicate row", "duplicate rows"),
    "contradictory_pair": (
        "noted",
        "pair that another row orders the other way",
        "pairs that another row orders the other way",
    ),
    "shared_prompt": ("noted", "prompt that is in the training rows too", "prompts that are in the training rows too"),
}
"""Kind → what happens to its rows, and its name for one and for several."""

STRICT_KINDS = frozenset(kind for kind, (fate, *_) in KINDS.items() if fate == "dropped" and kind != "tie")
"""Drops that `strict_data` turns into errors."""

EXAMPLES_KEPT = 5
REASONS_KEPT = 50
"""Different reasons that are counted; more than a few dozen say no more."""
_DIGITS = re.compile(r"(?<![A-Z-])-?\d+(?:\.\d+)?|(?<=text \().*(?=\))", re.DOTALL)


@dataclass(slots=True)
class DataReport:
    """Counts over one preparation. `counts` and `places` have the keys of KINDS."""

    source: str
    rows_read: int = 0
    examples_read: int = 0
    """What the order of an epoch is drawn over: every row, used or not; a pair taken as two labelled ones is two."""
    groups_used: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    counted_tokens: int = 0
    forms: Counter[str] = field(default_factory=Counter)
    """Form → rows recognised as such."""
    counts: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    """Kind → the first few places."""
    reasons: list[str] = field(default_factory=list)
    """The first few unusable rows, as "place: reason"."""
    alike: Counter[str] = field(default_factory=Counter)
    """Reason, its numbers left out → unusable rows."""
    from_cache: bool = False
    """Whether the work was found done; not part of the stored report."""

    def count(self, kind: str, place: Place | str, number: int = 1) -> None:
        """Count a row under a kind."""
        self.counts[kind] += number
        examples = self.places.setdefault(kind, [])
        if len(examples) < EXAMPLES_KEPT:
            examples.append(str(place))

    def reject(self, place: Place, reason: str) -> None:
        """Count an unusable row with its reason."""
        self.count("bad_row", place)
        kind = _DIGITS.sub("…", reason)
        if kind in self.alike or len(self.alike) < REASONS_KEPT:
            self.alike[kind] += 1
        if len(self.reasons) < EXAMPLES_KEPT:
            self.reasons.append(f"{place}: {reason}")

    @property
    def rows_dropped(self) -> int:
        return sum(number for kind, number in self.counts.items() if KINDS[kind][0] == "dropped")

    def one_line(self) -> str:
        """Say what became of the rows, e.g. "pairs.jsonl: 900 rows read, 898 used; dropped 2 identical pairs"."""
        head = f"{self.source}: {count_of(self.rows_read, 'row', 'rows')} read, {self.groups_used:,} used"
        parts = [head, *(self._fate(fate) for fate in ("rejected", "dropped", "cut", "noted"))]
        parts.append(f"{self.prompt_tokens + self.completion_tokens:,} tokens, {self.counted_tokens:,} counted")
        return "; ".join(part for part in parts if part)

    def _fate(self, fate: Fate) -> str:
        found = [(self.counts[kind], one, many) for kind, (mine, one, many) in KINDS.items() if mine == fate]
        words = ", ".join(count_of(number, one, many) for number, one, many in found if number)
        return f"{fate} {words}" if words else ""

    def as_dict(self) -> dict[str, Any]:
        """Return the report for data_report.json; from_dict reads it back."""
        return {
            "source": self.source,
            "rows_read": self.rows_read,
            "examples_read": self.examples_read,
            "groups_used": self.groups_used,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "counted_tokens": self.counted_tokens,
            "forms": dict(self.forms),
            "counts": {kind: self.counts[kind] for kind in KINDS if self.counts[kind]},
            "fates": {kind: KINDS[kind][0] for kind in KINDS if self.counts[kind]},
            "places": self.places,
            "reasons": self.reasons,
            "alike": dict(self.alike.most_common()),
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> DataReport:
        """Read a report back."""
        fields = {key: value for key, value in stored.items() if key != "fates"}
        for name in ("forms", "counts", "alike"):
            fields[name] = Counter(fields[name])
        return cls(**fields)


def count_of(number: int, one: str, many: str) -> str:
    """Say a number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def first_and_more(lines: Iterable[str], total: int, what: str) -> str:
    """Say the first line and how many more there are."""
    first = next(iter(lines))
    return first if total <= 1 else f"{first}\n{total - 1:,} more {what if total == 2 else what + 's'}"
