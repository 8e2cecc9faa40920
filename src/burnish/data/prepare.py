"""Rows → prompt groups on disk: recognise, render, tokenise, truncate, count, cache."""

from __future__ import annotations

import gc
import json
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from burnish.console import progress, warn
from burnish.data.audit import RowHashes, note_repetitions
from burnish.data.cache import CacheEntry, write_whole
from burnish.data.digests import code_fingerprint, sha256_of, tokenizer_fingerprint
from burnish.data.encoders import Batch, Encode, open_encoder
from burnish.data.examples import Example
from burnish.data.fast_tokens import FastTokensDiffer, fastokens_version
from burnish.data.formats import FORMS_IN_WORDS, recognise
from burnish.data.groups import PromptGroup
from burnish.data.kinds import GroupKind, convert
from burnish.data.report import KINDS, STRICT_KINDS, DataReport, first_and_more
from burnish.data.rows import BadRow, DroppedRow, Place, Row, RowError, RowSource, UnknownForm
from burnish.data.settings import CountingSettings, DataSettings, TokenizerBackend
from burnish.data.store import GroupStore, GroupWriter
from burnish.data.tokenise import Encoded
from burnish.data.truncate import check_contents, fit_to
from burnish.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["GroupKind", "Prepared", "data_cache_dir", "prepare_groups"]

ROWS_PER_BATCH = 500
OBJECTS_BETWEEN_COLLECTIONS = 200_000
"""New objects after which the garbage collector looks for cycles; a batch of rows is some ten thousand, without any."""
MAX_PROMPT_MISMATCH = 0.1
"""Greatest share of conversations whose prompt may be rendered otherwise before a completion than alone."""
COLUMNS_NAMED = 12
PROMPTLESS = ("messages", "text")
"""Shapes whose prompt is inside their completion."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """Groups ready to train on, and what became of every row."""

    groups: GroupStore
    report: DataReport

    @property
    def has_gaps(self) -> bool:
        """Whether some examples of the set gave no group."""
        return self.report.examples_read != len(self.groups)

    @property
    def fingerprint(self) -> str:
        """Hash of the groups and, where some examples gave none, of which: epochs are drawn over all of them."""
        if not self.has_gaps:
            return self.groups.fingerprint
        gaps = (str(self.report.examples_read), self.groups.numbers.tobytes())
        return sha256_of(self.groups.fingerprint, *gaps)


def data_cache_dir(settings: DataSettings) -> Path:
    """Return the folder of prepared rows: the setting, else $BURNISH_CACHE/data, else ~/.cache/burnish/data."""
    if settings.data_cache_dir is not None:
        return Path(settings.data_cache_dir).expanduser()
    base = os.environ.get("BURNISH_CACHE")
    return (Path(base) if base else Path.home() / ".cache" / "burnish") / "data"


def prepare_groups(
    rows: RowSource,
    tokenizer: PreTrainedTokenizerBase,
    settings: DataSettings,
    *,
    kind: GroupKind = "preference",
    cache_dir: Path,
    rejected_path: Path | None = None,
) -> Prepared:
    """Turn rows into prompt groups, or find them prepared.

    Memory does not grow with the number of rows, but for up to 32 bytes a row and the rejected rows.

    Args:
        rows: where they come from.
        tokenizer: fast; with a chat template if rows are conversations.
        settings: max_length, truncation_mode, on_bad_row, strict_data and dataset_num_proc are used.
        kind: what the method learns from.
        cache_dir: folder of prepared rows, found again by content.
        rejected_path: file that unusable rows are added to with on_bad_row "skip"; None only counts them.

    Raises:
        DataError: unusable rows (on_bad_row "error"), dropped rows (strict_data), no row of the kind's form, a chat
            template that is missing or does not fit, or a cache folder that cannot be written.
    """
    entry = cache_entry(rows, tokenizer, settings, kind, cache_dir)
    found = entry.load()
    if found is None:
        found = _prepare_and_keep(rows, tokenizer, settings, kind, entry)
    groups, report, rejected = found
    if rejected and rejected_path is not None:
        _add_lines(rejected_path, rejected)
    return Prepared(groups, report)


def cache_entry(
    rows: RowSource, tokenizer: PreTrainedTokenizerBase, settings: DataSettings, kind: GroupKind, cache_dir: Path
) -> CacheEntry:
    """Where rows are kept once they are prepared."""
    chosen = (kind, settings.max_length, settings.truncation_mode, settings.on_bad_row, settings.strict_data)
    chosen += (settings.tokenizer_backend, settings.max_prompt_length, settings.max_completion_length)
    if isinstance(settings, CountingSettings):
        chosen += (settings.completion_only_loss, settings.assistant_only_loss, settings.dataset_text_field)
    parts = (rows.name, rows.fingerprint, tokenizer_fingerprint(tokenizer), repr(chosen), code_fingerprint())
    return CacheEntry(cache_dir, sha256_of(*parts))


def _prepare_and_keep(
    rows: RowSource,
    tokenizer: PreTrainedTokenizerBase,
    settings: DataSettings,
    kind: GroupKind,
    entry: CacheEntry,
) -> tuple[GroupStore, DataReport, list[str]]:
    try:
        try:
            work, fingerprint = _prepare(rows, tokenizer, settings, kind, entry.groups, settings.tokenizer_backend)
        except FastTokensDiffer as difference:
            warn(
                f"fastokens {fastokens_version()} gives other ids than the tokenizer for {str(difference)[:80]!r}; "
                "the rows are tokenised without it"
            )
            work, fingerprint = _prepare(rows, tokenizer, settings, kind, entry.groups, "huggingface")
        groups = GroupStore.open(entry.groups, fingerprint)
        note_repetitions(work.report, groups, work.hashes)
        entry.commit(groups, work.report, work.rejected)
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"prepared rows can't be kept in {entry.folder}: {error.strerror or error}; "
            "give another folder: --data_cache_dir ./cache"
        ) from error
    return groups, work.report, work.rejected


def _prepare(
    rows: RowSource,
    tokenizer: PreTrainedTokenizerBase,
    settings: DataSettings,
    kind: GroupKind,
    path: Path,
    backend: TokenizerBackend,
) -> tuple[Preparation, str]:
    """Make one pass over the rows, with the groups into a file; return their fingerprint too."""
    work = Preparation(rows, settings, kind, DataReport(rows.name))
    with GroupWriter(path) as writer:
        with _few_collections(), open_encoder(tokenizer, settings.dataset_num_proc, backend) as encode:
            work.run(writer.add, encode)
        work.check()
    return work, writer.fingerprint


@contextmanager
def _few_collections() -> Iterator[None]:
    """Keep the garbage collector off what was there before and off rows in use: a third of the time went there."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


Observe = Callable[[Example, Encoded], None]
"""Sees each example that was encoded, before it is cut to max_length."""


@dataclass(slots=True)
class Preparation:
    """One pass over the rows."""

    rows: RowSource
    settings: DataSettings
    kind: GroupKind
    report: DataReport
    observe: Observe | None = None
    hashes: RowHashes = field(default_factory=RowHashes)
    rejected: list[str] = field(default_factory=list)
    """Unusable rows with place and reason, as JSON lines."""
    strict: list[str] = field(default_factory=list)
    """Dropped rows that strict_data makes errors, as "place: kind"."""
    columns: dict[str, None] = field(default_factory=dict)
    first_unknown: str = ""
    num_unknown: int = 0
    num_conversations: int = 0

    def run(self, add: Callable[[PromptGroup], None], encode: Encode) -> None:
        """Give each group to `add`, in the rows' order."""
        with progress("tokenising", total=self.rows.num_rows or 0, unit="rows") as advance:
            for batch, encoded in encode(self._batches()):
                places = zip(batch.places, batch.numbers, strict=True)
                for example, (place, number), result in zip(batch.examples, places, encoded, strict=True):
                    group = self._finish(example, place, result)
                    if group is not None:
                        self.hashes.add(group)
                        add(replace(group, number=number))
                advance(batch.num_rows)

    def check(self) -> None:
        """Raise DataError for what must not go on."""
        for fault in self.faults():
            raise DataError(fault)

    def faults(self) -> Iterator[str]:
        """Say what must not go on, the gravest first."""
        report = self.report
        if self.num_unknown and self.num_unknown == report.rows_read:
            yield self._no_known_row()
        elif report.reasons and self.settings.on_bad_row == "error":
            lines = first_and_more(report.reasons, report.counts["bad_row"], "unusable row")
            yield f"{lines} (--on_bad_row skip goes on without them and keeps them in rejected_rows.jsonl)"
        if self.strict and self.settings.strict_data:
            lines = first_and_more(self.strict, len(self.strict), "such row")
            yield f"{lines} (without --strict_data they are dropped and counted)"
        mismatched = report.counts["prompt_not_prefix"]
        if mismatched > MAX_PROMPT_MISMATCH * self.num_conversations:
            yield (
                f"{report.source}: the chat template writes {mismatched:,} of {self.num_conversations:,} prompts "
                f"otherwise before a completion than alone, first {report.places['prompt_not_prefix'][0]}: training "
                "would see other prompts than inference.\n"
                "Give a template that writes both alike: --chat_template_path template.jinja"
            )

    def _batches(self) -> Iterator[Batch]:
        rows = iter(self.rows)
        while chunk := list(islice(rows, ROWS_PER_BATCH)):
            batch = Batch(num_rows=len(chunk))
            for row, place in chunk:
                self.report.rows_read += 1
                for example in self._recognise(row, place):
                    if example is not None:
                        batch.examples.append(example)
                        batch.places.append(place)
                        batch.numbers.append(self.report.examples_read)
                    self.report.examples_read += 1
            yield batch

    def _recognise(self, row: Row | BadRow, place: Place) -> list[Example | None]:
        """The examples of a row, each None where it holds nothing to learn from; one None where the row gives none."""
        if isinstance(row, BadRow):
            self._reject(place, row.reason, row.text)
            return [None]
        try:
            example = recognise(_with_text(row, self.settings))
            wanted = convert(example, self.kind, self.settings)
            self.report.forms[example.form] += 1
            self.hashes.add_id(row, place.row)
            self._note_words(example, place)
            return [self._checked(one, place) for one in wanted]
        except UnknownForm as error:
            self.num_unknown += 1
            self.first_unknown = self.first_unknown or str(error)
            self.columns.update(dict.fromkeys(map(str, row)) if len(self.columns) < COLUMNS_NAMED else {})
            self._reject(place, str(error), row)
        except RowError as error:
            self._reject(place, str(error), row)
        except DroppedRow as drop:
            self._drop(place, drop.kind)
        return [None]

    def _checked(self, example: Example, place: Place) -> Example | None:
        try:
            check_contents(example)
        except DroppedRow as drop:
            self._drop(place, drop.kind)
            return None
        return example

    def _note_words(self, example: Example, place: Place) -> None:
        prompt = example.words[0]
        if not prompt.strip() and example.prompt != [] and example.shape not in PROMPTLESS:
            self.report.count("blank_prompt", place)
        if any("\ufffd" in words or "\0" in words for words in example.words):
            self.report.count("odd_characters", place)

    def _finish(self, example: Example, place: Place, encoded: Encoded | RowError) -> PromptGroup | None:
        """Count what became of an example, and give its group; None where it is not used."""
        if isinstance(encoded, RowError):
            self._reject(place, str(encoded), {"prompt": example.prompt, "completions": example.completions})
            return None
        self.num_conversations += example.layout == "conversational"
        if self.observe is not None:
            self.observe(example, encoded)
        try:
            fitting = fit_to(encoded, self.settings)
        except DroppedRow as drop:
            self._drop(place, drop.kind)
            return None
        for note in sorted(fitting.notes):
            self.report.count(note, place)
        group = _build_group(example, fitting, place)
        reads_reference = group.ref_logps is not None and self.kind != "ranking"
        if reads_reference and fitting.notes & {"completion_cut", "prompt_trimmed"}:
            reason = "ref_chosen_logps are of the whole row, which is cut: raise max_length, or leave the columns out"
            self._reject(place, reason, {"prompt": example.prompt, "completions": example.completions})
            return None
        weighted = group.token_weights is not None  # without weights, what counts nothing has been dropped above
        if weighted and any(group.counted_weight(number) == 0 for number in range(group.num_completions)):
            self._drop(place, "nothing_counted")
            return None
        self._count(group, fitting)
        return group

    def _count(self, group: PromptGroup, encoded: Encoded) -> None:
        self.report.groups_used += 1
        self.report.prompt_tokens += len(group.prompt_ids)
        for ids, mask in zip(encoded.completion_ids, encoded.masks, strict=True):
            self.report.completion_tokens += len(ids)
            self.report.counted_tokens += len(ids) if mask is None else int(mask.sum())

    def _reject(self, place: Place, reason: str, content: Any) -> None:
        self.report.reject(place, reason)
        if self.settings.on_bad_row == "skip":
            record = {"source": place.source, "row": place.row, "reason": reason, "content": content}
            self.rejected.append(json.dumps(record, default=str))

    def _drop(self, place: Place, kind: str) -> None:
        self.report.count(kind, place)
        if kind in STRICT_KINDS:
            self.strict.append(f"{place}: {KINDS[kind][1]}")

    def _no_known_row(self) -> str:
        columns = ", ".join(list(self.columns)[:COLUMNS_NAMED])
        return (
            f"{self.report.source} has no row to learn from (columns: {columns}): {self.first_unknown}.\n"
            f"Understood: {FORMS_IN_WORDS}."
        )


def _with_text(row: Row, settings: DataSettings) -> Row:
    """The row with its text under the name that the forms know."""
    if not isinstance(settings, CountingSettings) or settings.dataset_text_field == "text":
        return row
    column = settings.dataset_text_field
    return {"text": row[column]} if column in row else row


def _build_group(example: Example, encoded: Encoded, place: Place) -> PromptGroup:
    completions = tuple(map(_ids, encoded.completion_ids))
    masks = tuple(
        _all_counted(len(ids)) if mask is None else mask for ids, mask in zip(completions, encoded.masks, strict=True)
    )
    return PromptGroup(
        prompt_ids=_ids(encoded.prompt_ids),
        completion_ids=completions,
        completion_mask=masks,
        weight=example.weight,
        margin=example.margin,
        label=example.label,
        label_smoothing=example.label_smoothing,
        ref_logps=example.ref_logps,
        token_weights=None if encoded.weights is None else tuple(encoded.weights),
        ranking=example.ranking,
        source=place.source,
        row=place.row,
    )


def _ids(ids: Sequence[int]) -> np.ndarray:
    """View ids that fastokens gave, and copy a list of them, int32 (tokens,)."""
    return np.frombuffer(ids, np.int32) if isinstance(ids, array) and ids else np.asarray(ids, np.int32)


@lru_cache(4096)
def _all_counted(length: int) -> np.ndarray:
    """A mask that counts all, for every completion of this length: read-only, bool (tokens,)."""
    mask = np.ones(length, bool)
    mask.flags.writeable = False
    return mask


def _add_lines(path: Path, lines: list[str]) -> None:
    """Add lines that the file does not hold yet: training and evaluation rows, and a resumed run, share it."""
    before = path.read_text("utf-8").splitlines() if path.exists() else []
    known = set(before)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(f"{line}\n" for line in [*before, *(line for line in lines if line not in known)]))
