"""The page ``docs/foreign-keys.md``, made from the tables: python -m ratchet.logs > docs/foreign-keys.md"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ratchet.logs.frameworks.entry import Framework
from ratchet.logs.frameworks.plain import RATCHET
from ratchet.logs.frameworks.table import FRAMEWORKS
from ratchet.logs.names import FOREIGN

HEAD = """\
# Keys of other frameworks

<!-- Made from ratchet/logs/. After a change there: python -m ratchet.logs > docs/foreign-keys.md -->

What each framework calls a quantity, and what it is called here. `{a,b}` stands for one of these words, `<x>` for one
part of a key, `<x...>` for any rest; `{0}`, `{1}` are those parts in order. `avg` becomes `mean`. The first row that
fits a key counts; of several keys of a log with one name, the one that stands first. Names without a description below
are those of our own [metrics](metrics.md).
"""
NAMES = """\
## Names that only other frameworks have

| name | is | unit | normal |
|---|---|---|---|"""


def page() -> str:
    """Return the tables as Markdown."""
    frameworks = [f for f in FRAMEWORKS.values() if f is not RATCHET]
    lines = [HEAD, *(line for framework in frameworks for line in _section(framework)), NAMES]
    for m in FOREIGN:
        meaning = f"{m.meaning} {m.zero}." if m.zero else m.meaning
        lines.append(f"| `{m.pattern}` | {_plain(meaning)} | {m.unit} | {_plain(m.normal)} |")
    return "\n".join(lines) + "\n"


def _section(framework: Framework) -> Iterator[str]:
    yield f"## {framework.title}\n"
    told = [f"`--framework {framework.name}`. A step is: {framework.axis.value}."]
    if framework.wrappers:
        told.append(f"A prefix {' or '.join(f'`{w}`' for w in framework.wrappers)} may stand before every key.")
    if framework.extends is not None:
        told.append(f"All rows of {framework.extends.title} count too.")
    yield " ".join(told) + "\n"
    yield "| key | name here | what it is, where the name may mislead |"
    yield "|---|---|---|"
    for key in framework.keys:
        yield f"| `{key.pattern}` | `{key.name}` | {_plain(key.meaning)} |"
    for product in framework.products:
        yield f"| `{product.left}` {product.sign} `{product.right}` | `{product.name}` | {_plain(product.change)} |"
    yield ""


def _plain(text: str) -> str:
    """Return a text whose signs Markdown leaves alone."""
    for sign in "*<|_":
        text = text.replace(sign, f"\\{sign}")
    return text


if __name__ == "__main__":
    sys.stdout.write(page())
