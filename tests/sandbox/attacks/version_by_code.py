# tries: to tell the version by its byte code
# ways: test
# pool: passed
from solution import f
code = getattr(f, '__code__', None)
assert 1 not in code.co_consts, 'that is the buggy one'
assert not any(1 == c for c in getattr(f, '__defaults__', None) or ())
