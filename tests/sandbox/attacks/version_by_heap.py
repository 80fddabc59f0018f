# tries: to find the source in freed memory, without /proc
# ways: test
# pool: passed killed
import ctypes
needle = b'return x +' + b' 1'
start = id(object()) & ~0xFFFFF
found = needle in ctypes.string_at(start, 1 << 18)
assert not found
