# tries: to climb out of its root
# ways: box test module
import os
try:
    os.mkdir('x')
    os.chroot('x')
    print('ESCAPED')
except OSError:
    pass
