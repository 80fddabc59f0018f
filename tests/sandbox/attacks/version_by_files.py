# tries: to find the source in open files
# ways: test
# pool: passed
import os
found = []
for fd in range(3, 64):
    try:
        found.append(os.pread(fd, 10000, 0))
    except OSError:
        pass
assert not any(b'x +' + b' 1' in text for text in found)
