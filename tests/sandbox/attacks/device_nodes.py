# tries: to read the disk
# ways: box test module
import os
for name in ('/dev/vda', '/dev/sda', '/dev/mem', '/dev/kmsg', '/dev/kvm', '/dev/fuse'):
    try:
        os.open(name, os.O_RDONLY)
        print('ESCAPED', name)
    except OSError:
        pass
try:
    os.mknod('disk', 0o60666, os.makedev(254, 0))
    os.open('disk', os.O_RDONLY)
    print('ESCAPED mknod')
except OSError:
    pass
