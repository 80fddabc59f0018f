# tries: to leave a message in System V shared memory
# ways: box test module
import ctypes
if ctypes.CDLL(None).shmget(4711, 4096, 0o1666) >= 0:
    print('ESCAPED')
