"""Makes pairs of a buggy and a fixed source out of any Python package, for the environment `reproduce`.

    produce.py   the command as one call                 make.py      every function, from its source to its lines
    sources.py   what a package holds, read as text      bindings.py  what names at the top of a module are bound to
    needs.py     the names a piece of code needs         allowed.py   what a pure function may use; why one is refused
    closure.py   a function and what it needs, one file  kinds.py     what kind of value an argument takes
    known.py     inputs from doctests and tests          draw.py      inputs drawn from a seed
    cases.py     inputs with the results of the source   levels.py    tuples and iterators as lists that JSON can say
    mutate.py    one change at a time; changes*.py which choose.py    which mutants and which cases are kept
    measure.py   what a source does with inputs          inside.py    the text that runs beside a stranger's code
    rows.py      a kept mutant as a line                 write.py     lines, held against the environment
    ledger.py    where every function and mutant went

Owns the making of pairs; never trains on them. A stranger's code is parsed here and run in the sandbox alone: nothing
of it is imported into this process.
"""
