# tries: to read another process's memory
# ways: box test module
import ctypes
import os
libc = ctypes.CDLL(None)
buffer = ctypes.create_string_buffer(64)
class Part(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
local = Part(ctypes.addressof(buffer), 64)
for pid in (@PARENT@, os.getppid(), 1, 2):
    if pid > 0 and libc.process_vm_readv(pid, ctypes.byref(local), 1, ctypes.byref(local), 1, 0) > 0:
        print('ESCAPED', pid)
