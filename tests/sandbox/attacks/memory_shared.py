# tries: to take memory that belongs to no process
# ways: box test module
import mmap
import os
held = []
try:
    while True:
        fd = os.memfd_create('x')
        os.ftruncate(fd, 1 << 30)
        held.append(fd)
        print('ESCAPED memfd')
except OSError as error:
    print('refused', error)
