# tries: to debug the process that judges it
# ways: box test module
import ctypes
import os
libc = ctypes.CDLL(None, use_errno=True)
for pid in (@PARENT@, os.getppid(), 1, 2):
    if pid != os.getpid() and pid > 0 and libc.ptrace(16, pid, 0, 0) == 0:
        print('ESCAPED', pid)
