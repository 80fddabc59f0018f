# tries: to overflow the stack of C
# ways: box test module
# pool: killed memory other_exception timeout
import sys
sys.setrecursionlimit(10 ** 9)
def f():
    return f()
f()
