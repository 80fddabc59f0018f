# tries: to leave a message in the kernel's keyring
# ways: box test module
import ctypes
if ctypes.CDLL(None).syscall(248, b'user', b'ratchet', b'x', 1, -4) > 0:
    print('ESCAPED')
