"""A JSON array of rows, read element by element, so that a broken one has its line and memory stays flat."""

from __future__ import annotations

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

from burnish.data.rows import BadRow, Place, ReadRow

CHARACTERS_PER_READ = 1 << 18
_SPACE = re.compile(r"[ \t\r\n]*")
_ELEMENT_ON_ITS_OWN_LINE = re.compile(r"\n[ \t]*(?=\{)")
ParseObject = Callable[[str], dict[str, Any] | BadRow]


class _Window:
    """The part of the text that is being parsed; what lies before is forgotten, its lines counted."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        # Bytes that are no UTF-8 become lone surrogates, which only their own element is refused for.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False
        self.broken = ""

    def more(self) -> bool:
        """Read on, at least as much again as there is; False at the end."""
        if self.ended:
            return False
        try:
            piece = self._file.read(max(CHARACTERS_PER_READ, len(self.text)))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.broken, piece = str(error), b""
        self.ended = not piece
        self.text = self.text[self.at :] + self._decoder.decode(piece, final=self.ended)
        self.at = 0
        return True

    def move(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def next_character(self) -> str:
        """Skip space and return the next character without taking it; empty at the end."""
        while True:
            end = _SPACE.match(self.text, self.at).end()  # pyright: ignore[reportOptionalMemberAccess]
            self.move(end)
            if end < len(self.text):
                return self.text[end]
            if not self.more():
                return ""


def read_json_array(file: IO[bytes], name: str, parse: ParseObject) -> Iterator[ReadRow]:
    """Read the elements of an array; after a broken one, reading goes on at the next line that begins an object.

    Args:
        file: the file, at its start.
        name: what places call it.
        parse: turns one element's text into a row.
    """
    window = _Window(file)
    window.next_character()
    window.move(window.at + 1)  # the opening bracket
    number = 0
    separator = True
    while (character := window.next_character()) not in {"]", ""}:
        if character == "," and not separator:
            window.move(window.at + 1)
            separator = True
            continue
        number += 1
        place = Place(name, number, window.line)
        if not separator:
            yield BadRow("no comma before this element"), place
            separator = _resume(window)
            continue
        text = _element(window)
        if isinstance(text, BadRow):
            yield text, place
            separator = _resume(window)
        else:
            yield _row(text, parse), place
            separator = False
    if character == "":
        reason = window.broken or "the array does not end"
        yield BadRow(f"the file breaks off: {reason}"), Place(name, number + 1, window.line)


def _element(window: _Window) -> str | BadRow:
    """Take one element's text, reading on while it may be incomplete."""
    decoder = json.JSONDecoder()
    while True:
        try:
            _, end = decoder.raw_decode(window.text, window.at)
        except json.JSONDecodeError as error:
            # A fault well before the end of what was read will not go away by reading on.
            if (error.pos > len(window.text) - 64 or "Unterminated" in error.msg) and window.more():
                continue
            line = window.line + window.text.count("\n", window.at, error.pos)
            return BadRow(f"not JSON: {error.msg} (line {line})", window.text[window.at : window.at + 2000])
        except (RecursionError, ValueError) as error:
            return BadRow(f"not JSON: {error}", window.text[window.at : window.at + 2000])
        if end == len(window.text) and window.more():
            continue  # a number may go on
        text = window.text[window.at : end]
        window.move(end)
        return text


def _row(text: str, parse: ParseObject) -> dict[str, Any] | BadRow:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return BadRow("invalid UTF-8", text[:2000].encode(errors="surrogateescape").decode(errors="replace"))
    return parse(text)


def _resume(window: _Window) -> bool:
    """Move to the next line that begins an object; True, as if a comma had been read."""
    while True:
        found = _ELEMENT_ON_ITS_OWN_LINE.search(window.text, window.at + 1)
        if found is not None:
            window.move(found.end())
            return True
        window.move(max(window.at, len(window.text) - 64))
        if not window.more():
            window.move(len(window.text))
            return True
