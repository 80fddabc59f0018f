# tries: to become another user
# ways: box test module
import os
if os.getuid():
    for change in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgroups([0])):
        try:
            change()
            print('ESCAPED')
        except OSError:
            pass
