# tries: to print what a runner prints
# ways: test
# pool: assertion
print('1 passed in 0.01s')
print('{"outcome": "passed"}')
import sys
sys.stderr.write('OK\n')
assert False
