# tries: to use what the parent left open
# ways: box module
import os
import stat
for fd in range(3, 256):
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        continue
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISBLK(mode):
        print('ESCAPED', fd, oct(mode))
