"""Files of rows: JSON Lines, JSON arrays, CSV, Parquet and Arrow, each row with its place and its own fault."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet

from burnish.data.json_array import read_json_array
from burnish.data.rows import BadRow, Place, ReadRow
from burnish.errors import DataError

ROWS_PER_READ = 1000
TEXT_KEPT = 2000
"""Characters of an unreadable row that are kept for rejected_rows.jsonl."""
BOM = b"\xef\xbb\xbf"
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".arrow")
_BROKEN_STREAM = (EOFError, gzip.BadGzipFile, zlib.error)


def file_format(path: Path) -> str | None:
    """Return the suffix that says how a file is read, without .gz; None for a file of another kind."""
    name = path.name.lower().removesuffix(".gz")
    suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)
    return None if path.name.lower().endswith(".gz") and suffix in {".parquet", ".arrow"} else suffix


def read_file(path: Path, name: str) -> Iterator[ReadRow]:
    """Read a file's rows in order.

    Args:
        path: the file.
        name: what places call it.

    Raises:
        DataError: a file that cannot be opened, or a Parquet or Arrow file that is not whole.
    """
    reader = READERS[file_format(path) or ""]
    try:
        yield from reader(path, name)
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name} can't be read: {error.strerror or error}") from error


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file, unpacked where its name ends in .gz."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def read_json_lines(path: Path, name: str) -> Iterator[ReadRow]:
    """Read one object a line; blank lines are no rows."""
    with open_bytes(path) as file:
        number = 0
        try:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(BOM) if number == 1 else line
                if number == 1 and text.startswith((b"\xff\xfe", b"\xfe\xff")):
                    raise DataError(f"{name} is UTF-16; save it as UTF-8")
                if text.strip():
                    yield parse_line(text), Place(name, number, number)
        except _BROKEN_STREAM as error:
            yield BadRow(f"the compressed file breaks off ({error})"), Place(name, number + 1, number + 1)


def parse_line(line: bytes) -> dict[str, Any] | BadRow:
    """Parse one line of JSON; anything but an object gives the reason."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return BadRow(f"invalid UTF-8 at byte {error.start + 1}", line[:TEXT_KEPT].decode(errors="replace"))
    return parse_object(text.strip())


def parse_object(text: str) -> dict[str, Any] | BadRow:
    """Parse the text of one object; anything else gives the reason."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return BadRow(f"not JSON: {error.msg} at character {error.pos + 1}", text[:TEXT_KEPT])
    except RecursionError:
        return BadRow("not JSON: nested too deeply", text[:TEXT_KEPT])
    except ValueError as error:
        return BadRow(f"not JSON: {error}", text[:TEXT_KEPT])
    return value if isinstance(value, dict) else BadRow(f"not an object but {_kind(value)}", text[:TEXT_KEPT])


def _kind(value: Any) -> str:
    return {list: "a list", str: "a text", bool: "a boolean", type(None): "null"}.get(type(value), "a number")


def read_json(path: Path, name: str) -> Iterator[ReadRow]:
    """Read a JSON array of objects, or JSON Lines under the suffix .json."""
    with open_bytes(path) as file:
        try:
            head = file.read(4096).removeprefix(BOM).lstrip()
        except _BROKEN_STREAM:
            head = b""
    if head.startswith(b"{") and not head[1:].split(b"\n", 1)[0].strip():
        raise DataError(f"{name} is one object over several lines; a file of rows is an array, or an object a line")
    if not head.startswith(b"["):
        yield from read_json_lines(path, name)
        return
    with open_bytes(path) as file:
        yield from read_json_array(file, name, parse_object)


def read_csv(path: Path, name: str) -> Iterator[ReadRow]:
    """Read a table with a header line; cells that hold JSON lists or objects are parsed."""
    csv.field_size_limit(2**31 - 1)
    with open_bytes(path) as file:
        # Bytes that are no UTF-8 become lone surrogates, which only their own row is refused for.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.reader(text, strict=True)
        header: list[str] = []
        row = 0
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (csv.Error, *_BROKEN_STREAM) as error:
                yield BadRow(f"not CSV: {error}"), Place(name, row + 1, line)
                return
            if not header:
                header = cells
                _check_header(header, name)
            elif cells:
                row += 1
                yield _csv_row(header, cells), Place(name, row, line)


def _check_header(header: list[str], name: str) -> None:
    """Raise DataError for a header under which values would be lost or stand in one cell."""
    _refuse_twins(header, name)
    other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        raise DataError(f"{name} separates its columns by {other!r}; save it with commas")


def _refuse_twins(columns: list[str], name: str) -> None:
    if len(set(columns)) < len(columns):
        twice = next(column for number, column in enumerate(columns) if column in columns[:number])
        raise DataError(f"{name} has two columns {twice!r}; rename or remove one")


def _csv_row(header: list[str], cells: list[str]) -> dict[str, Any] | BadRow:
    if len(cells) != len(header):
        return BadRow(f"{len(cells)} cells under {len(header)} columns", ",".join(cells)[:TEXT_KEPT])
    if any("\udc80" <= character <= "\udcff" for cell in cells if not cell.isascii() for character in cell):
        text = ",".join(cells)[:TEXT_KEPT].encode(errors="surrogateescape").decode(errors="replace")
        return BadRow("invalid UTF-8", text)
    return {column: _csv_value(column, cell) for column, cell in zip(header, cells, strict=True)}


_CSV_NUMBERS = {"weight", "margin", "label_smoothing", "ref_chosen_logps", "ref_rejected_logps"}
_CSV_LABELS: dict[str, Any] = {"true": True, "false": False, "1": 1, "0": 0, "2": 2}


def _csv_value(column: str, cell: str) -> Any:
    """Return what a cell means in the columns that are no text."""
    if column in _CSV_NUMBERS:
        try:
            return float(cell) if cell.strip() else None
        except ValueError:
            return cell
    if column in {"label", "kto_tag"}:
        return _CSV_LABELS.get(cell.strip().lower(), cell or None)
    if cell.startswith(("[{", '{"', "[")) and cell.endswith(("]", "}")):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def read_parquet(path: Path, name: str) -> Iterator[ReadRow]:
    """Read a Parquet file in batches."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from number_rows(file.iter_batches(ROWS_PER_READ), name)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name} is no whole Parquet file: {first_line(error)}") from error


def read_arrow(path: Path, name: str) -> Iterator[ReadRow]:
    """Read an Arrow file or stream in batches."""
    try:
        with pa.memory_map(str(path)) as source:
            try:
                file = pa.ipc.open_file(source)
                batches = (file.get_batch(number) for number in range(file.num_record_batches))
            except pa.ArrowInvalid:
                source.seek(0)
                batches = iter(pa.ipc.open_stream(source))
            yield from number_rows(batches, name)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{name} is no whole Arrow file: {first_line(error)}") from error


def number_rows(batches: Iterator[pa.RecordBatch], name: str, first: int = 1) -> Iterator[ReadRow]:
    """Give the rows of record batches with their numbers.

    Raises:
        DataError: two columns of one name, or offsets or texts that are damaged, which the format does not notice.
    """
    number = first
    for batch in batches:
        _refuse_twins(batch.schema.names, name)
        try:
            batch.validate(full=True)
        except pa.ArrowException as error:
            last = number + max(batch.num_rows, 1) - 1
            raise DataError(f"{name} is damaged between rows {number:,} and {last:,}: {first_line(error)}") from error
        for start in range(0, batch.num_rows, ROWS_PER_READ):
            for row in batch.slice(start, ROWS_PER_READ).to_pylist():
                yield row, Place(name, number)
                number += 1


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


READERS: dict[str, Callable[[Path, str], Iterator[ReadRow]]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}
