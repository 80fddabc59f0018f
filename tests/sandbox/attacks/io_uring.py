# tries: to get around the filter of calls
# ways: box test module
import ctypes
if ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120)) >= 0:
    print('ESCAPED')
