# tries: to find the source on disk
# ways: test
# pool: passed
import os
found = False
for top in ('.', '/tmp', '/dev/shm', '/work', '/var'):
    for here, _, files in os.walk(top):
        for name in files[:50]:
            if name in ('solution.py', 'module.py'):
                found = True
assert not found
