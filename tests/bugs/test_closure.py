"""A function with all it needs as one file: what is taken along, how it looks, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from borrowed import pond

from ratchet.bugs.allowed import Reason, Refused
from ratchet.bugs.closure import one_file
from ratchet.bugs.sources import read_library


def closure(name: str, module: str = "pond.words", most_lines: int = 200) -> str:
    library = pond()
    return one_file(library, library.by_name[module], name, most_lines).text


def file_of(folder: Path, name: str = "f", module: str = "m", **sources: str) -> str:
    for file, source in sources.items():
        (folder / f"{file}.py").write_text(source)
    library = read_library(str(folder))
    found = next(m for m in library.modules if m.path.stem == module)
    return one_file(library, found, name, 200).text


def test_a_file_holds_imports_helpers_and_the_function_without_its_docstring() -> None:
    assert closure("initials") == (
        "from __future__ import annotations\n\n"
        "import re\n\n\n"
        'def squeeze(text: str) -> str:\n    return re.sub(r"\\s+", " ", text).strip()\n\n\n'
        'def initials(name: str, dot: str = ".") -> str:\n'
        "    # A name may be typed with any number of spaces.\n"
        '    words = squeeze(name).split(" ")\n'
        '    return "".join(word[0].upper() + dot for word in words if word)\n'
    )


def test_what_other_modules_define_comes_first_and_keeps_the_name_it_has_here() -> None:
    text = closure("headline")
    assert text.index("SMALL = {") < text.index("LOWER = SMALL") < text.index("def headline")
    assert "ROMAN" not in text


def test_a_helpers_docstring_is_cut_to_its_first_sentence(tmp_path: Path) -> None:
    helper = 'def g(x):\n    """Return x. Much is\n    to be said.\n\n    More.\n    """\n    return x\n'
    assert '    """Return x."""\n    return x\n' in file_of(tmp_path, m=f"{helper}def f(x):\n    return g(x)\n")


def test_a_table_that_is_filled_while_the_module_loads_is_taken_with_what_fills_it() -> None:
    text = closure("roman", "pond.amounts")
    assert "ROMAN = []\nfor _letter, _value in" in text
    assert "_SEEN" not in text


def test_names_of_annotations_alone_need_not_be_there() -> None:
    text = closure("longest")
    assert "from collections.abc import Iterable" in text
    assert "TYPE_CHECKING" not in text


def test_what_an_import_falls_back_to_stands_in_for_it(tmp_path: Path) -> None:
    source = "try:\n    from fast import g\nexcept ImportError: g = abs\ndef f(x):\n    return g(x)\n"
    assert file_of(tmp_path, m=source) == "g = abs\n\n\ndef f(x):\n    return g(x)\n"


def test_modules_come_in_the_order_in_which_they_are_needed(tmp_path: Path) -> None:
    text = file_of(
        tmp_path,
        m="import re\nfrom n import DEFAULT\ndef _h(x):\n    return x\ndef f(x, y=DEFAULT):\n    return _h(x) + y\n",
        n="DEFAULT = 3\n",
    )
    assert text.startswith("DEFAULT = 3\n")
    compile(text, "solution.py", "exec")


def test_a_condition_at_the_top_is_taken_as_a_whole(tmp_path: Path) -> None:
    source = "import sys\nif sys.version_info > (3, 0):\n    N = 1\nelse:\n    N = 2\ndef f(x):\n    return x + N\n"
    assert file_of(tmp_path, m=source).startswith("import sys\n\n\nif sys.version_info > (3, 0):\n    N = 1\nelse:")


def test_overloads_are_left_out(tmp_path: Path) -> None:
    source = "from typing import overload\n@overload\ndef f(x: int) -> int: ...\ndef f(x):\n    return x\n"
    assert file_of(tmp_path, m=source) == "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import numpy\ndef f(x):\n    return numpy.abs(x)\n", Reason.THIRD_PARTY),
        ("def f(x):\n    import numpy\n    return numpy.abs(x)\n", Reason.THIRD_PARTY),
        ("import n\ndef f(x):\n    return n.g(x)\n", Reason.PACKAGE),
        ("from m import gone\ndef f(x):\n    return gone(x)\n", Reason.UNKNOWN),
        ("def f(x):\n    return unheard_of(x)\n", Reason.UNKNOWN),
        ("SEEN = []\ndef f(x):\n    SEEN.append(x)\n    return x\n", Reason.GLOBAL),
        ("N = 0\ndef f(x):\n    global N\n    N += 1\n    return N\n", Reason.GLOBAL),
        ("T = {}\ndef g(x):\n    T[x] = 1\ndef f(x):\n    g(x)\n    return x\n", Reason.GLOBAL),
        ("def f(x):\n    print(x)\n    return x\n", Reason.IO),
        ("import os\ndef f(x):\n    return os.environ[x]\n", Reason.IO),
        ("from os import environ as e\ndef f(x):\n    return e[x]\n", Reason.IO),
        ("import socket\ndef f(x):\n    return socket.gethostbyname(x)\n", Reason.IO),
        ("import random\ndef f(x):\n    return random.choice(x)\n", Reason.RANDOM),
        ("from random import choice\ndef f(x):\n    return choice(x)\n", Reason.RANDOM),
        ("def f(x):\n    from random import choice\n    return choice(x)\n", Reason.RANDOM),
        ("import time\ndef f(x):\n    return time.time() + x\n", Reason.TIME),
        ("import datetime\ndef f(x):\n    return str(datetime.date.today())\n", Reason.TIME),
        ("def f(x):\n    return eval(x)\n", Reason.DYNAMIC),
        ("def f(x):\n    return hash(x)\n", Reason.DYNAMIC),
        ("def f(x):\n    return f.__code__.co_name\n", Reason.DYNAMIC),
        ("def d(g):\n    return g\n@d\ndef f(x):\n    return x\n", Reason.DECORATED),
        ("async def g(x):\n    return x\ndef f(x):\n    return g(x)\n", Reason.ASYNC),
        ("def f(x):\n    return (\n" + "        x +\n" * 300 + "        1\n    )\n", Reason.LONG),
    ],
)
def test_what_cannot_be_taken_along_or_is_not_pure_is_refused(tmp_path: Path, source: str, reason: Reason) -> None:
    with pytest.raises(Refused) as caught:
        file_of(tmp_path, m=source, n="def g(x):\n    return x\n")
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "source",
    [
        "import os\ndef f(x):\n    return os.path.join(x, 'a')\n",
        "from os.path import join\ndef f(x):\n    return join(x, 'a')\n",
        "import sys\ndef f(x):\n    return min(x, sys.maxsize)\n",
        "import random\ndef f(x):\n    return random.Random(x).random()\n",
        "import functools\n@functools.lru_cache(maxsize=None)\ndef f(x):\n    return x\n",
        "def f(x):\n    seen = []\n    seen.append(x)\n    return seen\n",
        "T = {}\nT['a'] = 1\ndef f(x):\n    return T.get(x)\n",
        "def f(x):\n    return x\nf.__doc__ = 'Return x.'\n",
    ],
)
def test_pure_parts_of_impure_modules_may_be_used(tmp_path: Path, source: str) -> None:
    assert "def f(x):" in file_of(tmp_path, m=source)


def test_two_things_of_one_name_cannot_be_in_one_file(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="two things are called _h"):
        file_of(
            tmp_path,
            m="from n import g\ndef _h(x):\n    return 1\ndef f(x):\n    return g(_h(x))\n",
            n="def _h(x):\n    return 2\ndef g(x):\n    return _h(x)\n",
        )


def test_modules_that_import_a_name_from_each_other_end_in_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="g"):
        file_of(tmp_path, m="from n import g\ndef f(x):\n    return g(x)\n", n="from m import g\n")
