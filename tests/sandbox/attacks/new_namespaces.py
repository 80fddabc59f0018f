# tries: to become root in namespaces of its own
# ways: box test module
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for flags in (0x10000000, 0x10020000, 0x20000000, 0x40000000, 0x00020000):
    if libc.unshare(flags) == 0:
        print('ESCAPED', hex(flags))
