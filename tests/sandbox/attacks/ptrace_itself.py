# tries: to offer itself to a debugger
# ways: box test module
import ctypes
if ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0:
    print('ESCAPED')
