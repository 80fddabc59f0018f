"""Makes pairs of a buggy and a fixed source out of any Python package, for the environment `reproduce`.

    sources.py   what a package holds, read as text      functions.py  candidates, and why others are none
    needs.py     the names a piece of code needs         allowed.py    what a pure function may use
    closure.py   a function and what it needs, one file  known.py      inputs from doctests and tests
    draw.py      inputs drawn from a seed                mutate.py     one change at a time; changes*.py: which
    measure.py   what a source does with inputs          choose.py     which mutants and which cases are kept
    make.py      all of it, for every function           ledger.py     where every function and mutant went
    write.py     lines, held against the environment     inside.py     the text that runs beside a stranger's code

Owns the making of pairs; never trains on them. A stranger's code is parsed here and run in the sandbox alone: nothing
of it is imported into this process.
"""
