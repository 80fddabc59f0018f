"""What trainers print: `Console` is fed line by line and finds the rows among everything else that is printed.

Shapes, by the name their rows get:

    step lines          step:7 - critic/score/mean:0.5 - ...                     verl, SkyRL
    dicts               {'loss': 0.1, 'reward': '0.5', ...}                       TRL, Unsloth, SkyRL
    step dicts          Step 7: {'critic/score/mean': 0.5, ...}                   Trinity
    rollout dicts       rollout 7: {...}, step 7: {...}, perf 7: {...}            slime
    global step dicts   Global step 7: {...}                                     OpenRLHF
    tagged json         metrics_tag: {"step": 7, "metrics": {...}}               ROLL
    box tables          Train step 7/100 done, then boxes of keys and values     AReaL
    rich tables         a box titled Step 7                                      tinker-cookbook
    metrics blocks      === [METRICS STEP 7 ===, then key: value                 torchforge
    sections            === Step 7/100 ===, then Training Results and bullets    NeMo-RL
    pipes               Step 7 | Time: 73.8s | Reward: 0.39 | ...                prime-rl
    drawn tables        <table> ... Step, Training Loss, reward                  TRL, Unsloth in a notebook

Prefixes of Ray and loggers, colours, progress bars and stack traces around the rows are passed over.
"""

from __future__ import annotations

import re
from math import nan
from operator import getitem

from ratchet.logs.cells import number, parsed, row_of
from ratchet.logs.collect import Table
from ratchet.logs.formats.blocks import Blocks
from ratchet.logs.formats.drawn import read_drawn
from ratchet.logs.lines import without_colour

STEP_LINE = re.compile(r"\bstep:(-?\d{1,15}) - ")
LABEL = re.compile(r"\b(rollout|step|perf|eval|passrate|Step|Global step) (\d{1,15})(?: \[\w+\])?: ?$")
SHAPES = {"Step": "step dicts", "Global step": "global step dicts"}
"""By label; the others are slime's."""
RAY = re.compile(r"^\s*\((?:[^()\s]+ )?pid=\d+[^()]*\) ?")
REPEATED = " [repeated "
"""What Ray appends to a line that several processes printed."""
NUMPY = ("np.float64(", "np.float32(", "np.int64(")
UNWRAPPED = re.compile(r"\b(?:np\.|numpy\.)?(?:float|int)\d*\(([^()]*)\)")
PAIR = re.compile(
    r"""(?:'([^']+)'|"([^"]+)")\s*:\s*(?:'([^']*)'|"([^"]*)"|([\w.]+\([^()]*(?:\([^()]*\)[^()]*)*\))|([^,{}\[\]'"]+))"""
)
MAX_PENDING = 500
"""Lines a printed dict may go on for."""
MAX_PAGE = 1_000_000
"""Lines a drawn table may go on for: a cell is one."""
PROGRESS = re.compile(r"\b(\d{1,15})/(\d{1,15}) \[\d+:\d+")
PROGRESS_WITHIN = 3
"""Lines after a row in which its progress bar is drawn again."""


class Console:
    """Takes printed lines, adds the rows it finds to a table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._layouts: dict[int, tuple[tuple[str, ...], tuple[str, ...], tuple[slice, ...]]] = {}
        self._blocks = Blocks(table)
        self._pending: list[str] = []
        self._page: list[str] = []
        self._label = ""
        self._rest = ""
        self._bar_row = -1
        self._bar_lines = 0

    def feed(self, line: str) -> None:
        """Take one line without its end."""
        if "\x1b" in line:
            line = without_colour(line)
        if self._bar_lines:
            self._look_for_bar(line)
        if "step:" in line and self._step_line(line):
            return
        if ("{'" in line or '{"' in line) and self._dict_line(line):
            return
        if self._pending:
            self._go_on(line)
        elif self._page or "<table" in line:
            self._page_line(line)
        else:
            self._blocks.feed(line)

    def feed_text(self, text: str) -> None:
        """Take a piece of printed text that may begin and end anywhere in a line."""
        pieces = (self._rest + text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        self._rest = pieces.pop()
        for piece in pieces:
            self.feed(piece)

    def close(self) -> None:
        """Take what was begun as finished."""
        if self._rest:
            self.feed(self._rest)
            self._rest = ""
        self._blocks.close()

    def _step_line(self, line: str) -> bool:
        found = STEP_LINE.search(line)
        if found is None:
            return False
        rest = line[found.end() :]
        if REPEATED in rest:
            rest = rest[: rest.index(REPEATED)]
        if "(" in rest:
            rest = _unwrapped(rest)
        parts, step = rest.split(" - "), float(found.group(1))
        known = self._layouts.get(len(parts))
        if known is not None and all(map(str.startswith, parts, known[1])):
            try:  # the usual case: the same keys as on a line before, and a number for each
                values = [*map(float, map(getitem, parts, known[2]))]  # type: ignore[arg-type]  # parts of text are text
            except ValueError:
                pass
            else:
                self._table.add(known[0], values, step, "step lines")
                return True
        pairs = {}
        for part in parts:
            key, _, text = part.partition(":") if "(" in part else part.rpartition(":")
            value = number(text)
            if key and value is not None:
                pairs[key.strip()] = value
        if len(pairs) == len(parts):
            heads = tuple(part[: part.rindex(":") + 1] for part in parts)
            self._layouts[len(parts)] = (tuple(pairs), heads, tuple(slice(len(head), None) for head in heads))
        if pairs:
            self._table.add(tuple(pairs), list(pairs.values()), step, "step lines")
        return bool(pairs)

    def _dict_line(self, line: str) -> bool:
        start = min(at for sign in ("{'", '{"') if (at := line.find(sign)) >= 0)
        self._pending.clear()
        end = line.rfind("}")
        if end > start:
            return self._dict(line[:start], line[start : end + 1])
        if line.rstrip().endswith((",", "{")):
            self._label, self._pending = line[:start], [line[start:]]
        return False

    def _go_on(self, line: str) -> None:
        """Take the next line of a dict that is printed over several."""
        line = RAY.sub("", line)
        if not ("'" in line or '"' in line or "}" in line):  # it was the beginning of something else
            self._pending = []
            self._blocks.feed(line)
            return
        self._pending.append(line)
        if "}" in line:
            text = " ".join(self._pending)
            self._pending = []
            self._dict(self._label, text[: text.rindex("}") + 1])
        elif len(self._pending) > MAX_PENDING:
            self._pending = []

    def _dict(self, before: str, text: str) -> bool:
        keys, values = printed_row(text)
        if not keys:
            return False
        label = LABEL.search(before)
        if label is not None:
            self._table.add(keys, values, float(label.group(2)), SHAPES.get(label.group(1), "rollout dicts"))
        else:
            tagged = "metrics_tag" in before
            self._bar_row, self._bar_lines = self._table.num_rows, PROGRESS_WITHIN
            self._table.add(keys, values, nan, "tagged json" if tagged else "dicts")
        return True

    def _page_line(self, line: str) -> None:
        """Take a line of a table that a notebook drew and that was saved with what it printed."""
        self._page.append(line)
        if "<" not in line and line.strip():  # it was the beginning of something else
            self._page = []
            self._blocks.feed(line)
        elif "</table>" in line:
            read_drawn("\n".join(self._page), self._table)
            self._page = []
        elif len(self._page) > MAX_PAGE:
            self._page = []

    def _look_for_bar(self, line: str) -> None:
        """Take the step from the progress bar that is drawn again after a row was printed above it."""
        self._bar_lines -= 1
        if " [" in line and (found := PROGRESS.search(line)):
            self._table.bars.append((self._bar_row, int(found.group(1)), int(found.group(2))))
            self._bar_lines = 0


def printed_row(text: str) -> tuple[tuple[str, ...], list[float]]:
    """Return keys and numbers of a row printed as JSON or as a Python dict; empty if it is neither.

    Numbers may be quoted, ``nan``, ``inf``, or wrapped as NumPy and torch print theirs.
    """
    tree = parsed(text if text.startswith('{"') else text.replace("'", '"'))
    if isinstance(tree, dict):
        keys, values, _ = row_of(tree)
        return keys, values
    pairs = {}
    for single, double, *values_ in PAIR.findall(text):
        value = number(next((v for v in values_ if v), ""))
        if value is not None:
            pairs[single or double] = value
    return tuple(pairs), list(pairs.values())


def _unwrapped(text: str) -> str:
    """Return a line with the numbers that NumPy and torch print in brackets freed of them."""
    for wrapper in NUMPY:
        if wrapper in text:
            text = text.replace(wrapper, "").replace(")", "")
    return UNWRAPPED.sub(r"\1", text) if "(" in text else text
