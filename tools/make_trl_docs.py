"""Write docs/trl.md and docs/zh/trl.md from the table of TRL's settings; `--check` only says whether they are current.

Run after a change of a setting, a default or the table: `.venv/bin/python tools/make_trl_docs.py`.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.methods.dpo import DPOConfig
from burnish.trl_flags import ACCELERATE, FORMER, TRL_FLAGS, Answer, NotNeeded, Refused, Same, Translated

ROOT = Path(__file__).parents[1]
FLAGS = ROOT / "tests" / "golden" / "trl_dpo_flags.json"

ENGLISH = {
    "title": "# Coming from TRL: every setting of `trl dpo`",
    "made": "<!-- made by tools/make_trl_docs.py from src/burnish/trl_flags; change those, not this file -->",
    "intro": (
        "Change `trl dpo` to `burnish dpo`: both commands in TRL's own `dpo.py` run unchanged, and so does a YAML file "
        "given by `--config`. This page lists every setting of TRL {trl} (with transformers {transformers}) and what "
        "burnish makes of it, flags and YAML keys alike. In Python, `DPOConfig` takes the settings of the first two "
        "tables."
    ),
    "columns": "| setting | TRL | burnish | note |",
    "other": "## Same name, other default\n\nThe defaults are those of the reference job: DPO of Qwen2-0.5B-Instruct.",
    "same": "## Same name, same default",
    "translated": "## Translated",
    "not_needed": "## Not needed\n\nAccepted; one line says why, and the run goes on.",
    "refused": (
        "## Refused by name\n\nAn error that says what to use instead, unless the value asks for nothing: that passes."
    ),
    "former": "## Settings of earlier versions of TRL and transformers",
    "accelerate": "## What `trl dpo` hands on to `accelerate launch`",
    "more": (
        "## What TRL does not have\n\nSettings of burnish alone; `burnish dpo --help-all` says what each does."
        "\n\n{names}"
    ),
    "not_needed_word": "not needed",
    "refused_word": "refused",
    "passes": "passes: {values}",
    "unset": "unset",
}

CHINESE = {
    "title": "# 从 TRL 迁移：`trl dpo` 的全部设置",
    "made": "<!-- 由 tools/make_trl_docs.py 根据 src/burnish/trl_flags 生成；请修改后者，不要修改本文件 -->",
    "intro": (
        "把 `trl dpo` 换成 `burnish dpo` 即可：TRL 自带 `dpo.py` 中的两条命令无需修改就能运行，`--config` 指定的 YAML "
        "文件也一样。本页列出 TRL {trl}（transformers {transformers}）的每一个设置以及 burnish 如何处理它，"
        "命令行参数与 YAML 键相同。在 Python 中，`DPOConfig` 接受前两个表中的设置。"
    ),
    "columns": "| 设置 | TRL | burnish | 说明 |",
    "other": "## 同名，默认值不同\n\n默认值取自参考任务：对 Qwen2-0.5B-Instruct 做 DPO。",
    "same": "## 同名，默认值相同",
    "translated": "## 自动转换",
    "not_needed": "## 不需要\n\n可以给出；会用一行说明原因，训练照常进行。",
    "refused": "## 明确拒绝\n\n报错并说明替代方法；如果取值等于什么都不做，则放行。",
    "former": "## TRL 与 transformers 早期版本的设置",
    "accelerate": "## `trl dpo` 转交给 `accelerate launch` 的参数",
    "more": "## TRL 没有的设置\n\nburnish 独有，`burnish dpo --help-all` 说明各自的作用。\n\n{names}",
    "not_needed_word": "不需要",
    "refused_word": "拒绝",
    "passes": "放行：{values}",
    "unset": "未设置",
}


@dataclass(frozen=True)
class Page:
    """One language's page."""

    words: dict[str, str]
    path: Path
    is_chinese: bool


PAGES = (Page(ENGLISH, ROOT / "docs" / "trl.md", False), Page(CHINESE, ROOT / "docs" / "zh" / "trl.md", True))


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = [page.path for page in PAGES if not write(page, check=check)]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is out of date: run python tools/make_trl_docs.py")
    return 1 if stale else 0


def write(page: Page, *, check: bool) -> bool:
    """Write a page; with `check`, only say whether it is what would be written."""
    text = render(page)
    if check:
        return page.path.exists() and page.path.read_text(encoding="utf-8") == text
    page.path.parent.mkdir(parents=True, exist_ok=True)
    page.path.write_text(text, encoding="utf-8")
    return True


def render(page: Page) -> str:
    golden = json.loads(FLAGS.read_text(encoding="utf-8"))
    words, flags = page.words, golden["flags"]
    ours = {field.name: default_of(field) for field in dataclasses.fields(DPOConfig)}
    shared = [name for name in flags if name in ours]
    alone = sorted(name for name in ours if name not in flags)
    parts = [
        words["title"],
        words["made"],
        words["intro"].format(**golden["versions"]),
        table(page, "other", [shared_row(page, name, flags, ours) for name in shared if differs(name, flags, ours)]),
        table(page, "same", [shared_row(page, name, flags, ours) for name in shared if not differs(name, flags, ours)]),
    ]
    for section, kind in (("translated", Translated), ("not_needed", NotNeeded), ("refused", Refused)):
        names = [name for name in flags if isinstance(TRL_FLAGS.get(name), kind) and name not in ours]
        parts.append(table(page, section, [row(page, name, show(page, flags[name]["default"])) for name in names]))
    parts.append(table(page, "former", [row(page, name, "") for name in FORMER]))
    parts.append(table(page, "accelerate", [row(page, name, "") for name in ACCELERATE]))
    parts.append(words["more"].format(names=", ".join(f"`{name}`" for name in alone) + "."))
    return "\n\n".join(parts) + "\n"


def table(page: Page, section: str, rows: list[str]) -> str:
    return "\n".join([page.words[section], "", page.words["columns"], "|---|---|---|---|", *rows])


def differs(name: str, flags: dict[str, Any], ours: dict[str, Any]) -> bool:
    return flags[name]["default"] != ours[name]


def shared_row(page: Page, name: str, flags: dict[str, Any], ours: dict[str, Any]) -> str:
    answer = TRL_FLAGS.get(name)
    note = note_of(page, answer) if answer is not None else ""
    return f"| `{name}` | {show(page, flags[name]['default'])} | {show(page, ours[name])} | {note} |"


def row(page: Page, name: str, trl_default: str) -> str:
    answer = TRL_FLAGS[name]
    return f"| `{name}` | {trl_default} | {verdict(page, answer)} | {note_of(page, answer)} |"


def verdict(page: Page, answer: Answer) -> str:
    match answer:
        case Translated():
            return ", ".join(f"`{name}`" for name in answer.to.split(", "))
        case NotNeeded():
            return page.words["not_needed_word"]
        case Refused():
            return page.words["refused_word"]
        case _:
            raise TypeError(answer)


def note_of(page: Page, answer: Answer) -> str:
    """The note in the page's language, with what passes of the refused ones."""
    english = {Same: "note", Translated: "note", NotNeeded: "why", Refused: "instead"}[type(answer)]
    note = answer.zh if page.is_chinese else getattr(answer, english)
    if isinstance(answer, Refused):
        values = [show(page, value) for value in answer.harmless if value not in (None, False, "", [])]
        if values:
            note += ("；" if page.is_chinese else "; ") + page.words["passes"].format(values=", ".join(values))
    return note.replace("|", "\\|")


def show(page: Page, value: Any) -> str:
    if value is None or value in ("", []):
        return page.words["unset"]
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`{' '.join(str(part) for part in value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def default_of(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


if __name__ == "__main__":
    sys.exit(main())
