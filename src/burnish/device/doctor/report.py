"""Prints findings: a line a check with its cure under it, one last sentence that says what to do first, or JSON."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from burnish.device.doctor.chain import Link
from burnish.device.doctor.explain import Explanation
from burnish.device.doctor.findings import RANK, Both, Finding, Status, in_words
from burnish.device.doctor.loading import Loaded, expected_kind
from burnish.device.doctor.machine import Machine
from burnish.device.doctor.messages import MESSAGES, Language
from burnish.device.doctor.smoke import chosen_kind

_PLAIN: Mapping[Status, str] = {"ok": "ok  ", "warning": "warn", "failure": "FAIL", "skipped": "-   "}
_SIGNS: Mapping[Status, str] = {"ok": "✓", "warning": "!", "failure": "✗", "skipped": "-"}
_COLOURS: Mapping[Status, str] = {"ok": "\033[32m", "warning": "\033[33m", "failure": "\033[31m", "skipped": "\033[2m"}
_LABEL_WIDTH = 16
_AS_ABOVE = Both("as above", "同上")
_WORDS = {
    "cause": Both("cause", "原因"),
    "cure": Both("cure", "处理"),
    "begin": Both("Begin with the first; the others may follow from it.", "请先处理第一条，其余可能由它引起。"),
}


@dataclass(slots=True)
class Report:
    """What a round of checks found, in the words of one language."""

    machine: Machine
    language: Language
    out: TextIO = field(default_factory=lambda: sys.stdout)
    smoke: bool = False
    found: list[tuple[Link, Finding]] = field(default_factory=list)
    _cured: set[str] = field(default_factory=set)

    @property
    def failed(self) -> bool:
        return any(finding.worst == "failure" for _, finding in self.found)

    def tell(self, link: Link, finding: Finding) -> None:
        """Keep a finding and print its line; skipped checks are told together, at the end."""
        self.found.append((link, finding))
        if finding.status != "skipped":
            self._lines(in_words(link.label, self.language), finding)
            for other in finding.also:
                self._lines("", other)

    def end(self, loaded: Loaded) -> None:
        """Print what was skipped, what training would use, and what to do first."""
        reasons: dict[str, list[Both]] = {}
        for link, finding in self.found:
            if finding.status == "skipped":
                reasons.setdefault(self._clean(finding.text(self.language)), []).append(link.label)
        for reason, labels in reasons.items():
            label = labels[0] if len(labels) == 1 else Both(f"{len(labels)} checks", f"{len(labels)} 项检查")
            self._line("skipped", in_words(label, self.language), reason)
        print("", self.uses(loaded), self.first(), sep="\n", file=self.out)

    def uses(self, loaded: Loaded) -> str:
        """Say which device and precision training would use on this machine as it is."""
        if not loaded.works:
            return MESSAGES["end.unusable"].text(self.language)
        kind = chosen_kind(self.machine, loaded)
        if kind == "cpu" and expected_kind(self.machine) != "cpu":
            return MESSAGES["end.cpu_instead"].text(self.language)
        values = {"device": in_words(_device(kind, loaded), self.language), "precision": _precision(kind, loaded)}
        return MESSAGES["end.uses"].text(self.language).format(**values)

    def first(self) -> str:
        """The one thing to do first: the cure of the first failure, else of the first warning that has one."""
        flat = [(link, one) for link, finding in self.found for one in (finding, *finding.also)]
        for status in ("failure", "warning"):
            for link, finding in flat:
                cure = finding.cure(self.language)
                if finding.status == status and cure:
                    values = {"label": in_words(link.label, self.language), "cure": self._clean(cure)}
                    return MESSAGES["end.first"].text(self.language).format(**values)
        return MESSAGES["end.well_smoke" if self.smoke else "end.well"].text(self.language)

    def as_facts(self, loaded: Loaded, *, version: str, exit_code: int) -> dict[str, Any]:
        """The whole report as plain data, for pasting into an issue: no host name, no user name."""
        return {
            "burnish": version,
            "exit_code": exit_code,
            "uses": self.uses(loaded),
            "first": self.first(),
            "checks": [
                {"check": link.name, **self._plain(one)}
                for link, finding in self.found
                for one in (finding, *finding.also)
            ],
        }

    def _plain(self, finding: Finding) -> dict[str, str]:
        texts = {"text": finding.text(self.language), "cure": finding.cure(self.language)}
        return {"status": finding.status, "finding": finding.key} | {
            name: self._clean(text) for name, text in texts.items()
        }

    def _lines(self, label: str, finding: Finding) -> None:
        self._line(finding.status, label, self._clean(finding.text(self.language)))
        cure = self._clean(finding.cure(self.language))
        if not cure or RANK[finding.status] < RANK["warning"]:
            return
        words = in_words(_AS_ABOVE, self.language) if cure in self._cured else cure
        self._cured.add(cure)
        width = 1 if self._rich else 4
        print(" " * (width + 4 + _LABEL_WIDTH) + "-> " + words, file=self.out, flush=True)

    def _line(self, status: Status, label: str, text: str) -> None:
        sign = _SIGNS[status] if self._rich else _PLAIN[status]
        if self._rich:
            sign = f"{_COLOURS[status]}{sign}\033[0m"
        print(f"  {sign}  {padded(label, _LABEL_WIDTH)}{text}", file=self.out, flush=True)

    @property
    def _rich(self) -> bool:
        wants_plain = "NO_COLOR" in self.machine.environment or self.machine.variable("TERM") == "dumb"
        return self.out.isatty() and not wants_plain and (self.out.encoding or "").lower().startswith("utf")

    def _clean(self, text: str) -> str:
        home = str(self.machine.home)
        one_line = " ".join(text.split())
        return one_line.replace(home, "~") if len(home) > 1 else one_line


def padded(text: str, width: int) -> str:
    """Pad to a width in terminal columns, of which a Chinese character takes two."""
    columns = sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
    return text + " " * max(1, width - columns)


def print_explanations(found: Iterable[Explanation], language: Language, out: TextIO) -> None:
    """Print each known text of a log with its cause and cure."""
    known = list(found)
    for item in known:
        where = f"第 {item.line_number} 行" if language == "zh" else f"line {item.line_number}"
        often = f" (x{item.times})" if item.times > 1 else ""
        print(f"{where}{often}: {item.line}", file=out)
        for name, words in (("cause", item.cause), ("cure", item.cure)):
            print(f"  {padded(in_words(_WORDS[name], language), 7)}{in_words(words, language)}", file=out)
        print(file=out)
    if len(known) > 1:
        print(in_words(_WORDS["begin"], language), file=out)


def _device(kind: str, loaded: Loaded) -> str | Both:
    facts = loaded.stages.get("torch" if kind == "cpu" else kind, {})
    if kind == "cpu":
        processor, threads = facts.get("processor", "?"), facts.get("threads", "?")
        words = "thread" if threads == 1 else "threads"
        return Both(f"cpu ({processor}, {threads} {words})", f"cpu（{processor}，{threads} 线程）")
    return f"{kind}:0 ({facts['names'][0]}, {facts['total_bytes'] / 2**30:.0f} GiB)"


def _precision(kind: str, loaded: Loaded) -> str:
    if kind == "cpu":
        return "float32"
    return "bf16" if loaded.stages[kind].get("bf16") else "fp16"
