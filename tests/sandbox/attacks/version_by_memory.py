# tries: to find the source in its own memory
# ways: test
# pool: passed
import ctypes
needle = b'return x +' + b' 1'
try:
    lines = open('/proc/self/maps').read().splitlines()
except OSError:
    lines = []
found = False
for line in lines:
    low, high = (int(n, 16) for n in line.split()[0].split('-'))
    if ' rw' in line and 'stack' not in line:
        found = found or needle in ctypes.string_at(low, high - low)
assert not found
