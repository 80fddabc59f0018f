# tries: to watch the module's lines as they run
# ways: test
# pool: passed
import sys
from solution import f
seen = []
def trace(frame, event, argument):
    seen.append((frame.f_code.co_filename, frame.f_code.co_consts))
    return trace
sys.settrace(trace)
f(3)
sys.settrace(None)
assert not any(name == 'solution.py' and 1 in consts for name, consts in seen)
