# tries: to confuse the protocol between module and test
# ways: module
import os
import struct
for fd in range(3, 64):
    try:
        os.write(fd, struct.pack('!I', 12) + b'{"value": 2}')
        os.write(fd, struct.pack('!I', 1 << 31))
    except OSError:
        pass
def f(x):
    return 41
