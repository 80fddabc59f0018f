# tries: to change what it sees
# ways: box test module
import ctypes
libc = ctypes.CDLL(None)
if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 or libc.umount2(b'/proc', 2) == 0 or libc.umount2(b'/tmp', 2) == 0:
    print('ESCAPED')
