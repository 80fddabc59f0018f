# tries: to fail first and pass next, by a mark left behind
# ways: test
# pool: assertion
import os
marked = False
for folder in ('.', '/tmp', '/dev/shm', '/var/tmp', os.path.expanduser('~'), '..'):
    path = os.path.join(folder, 'ratchet-escaped-mark')
    marked = marked or os.path.exists(path)
for folder in ('.', '/tmp', '/dev/shm', '/var/tmp', os.path.expanduser('~'), '..'):
    path = os.path.join(folder, 'ratchet-escaped-mark')
    try:
        open(path, 'w').close()
    except OSError:
        pass
assert marked
