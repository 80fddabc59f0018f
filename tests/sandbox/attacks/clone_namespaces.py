# tries: to become root by clone and clone3
# ways: box test module
import ctypes
import os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
pid = libc.syscall(ctypes.c_long(56), ctypes.c_ulong(0x10000000 | 17), 0, 0, 0, 0) if os.uname().machine == 'x86_64' else -1
if pid == 0:
    os._exit(0)
if pid > 0:
    print('ESCAPED clone')
args = (ctypes.c_uint64 * 11)(0x10000000, 0, 0, 0, 17)
pid = libc.syscall(ctypes.c_long(435), args, ctypes.c_size_t(88))
if pid == 0:
    os._exit(0)
if pid > 0:
    print('ESCAPED clone3')
