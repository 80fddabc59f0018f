# tries: to outlive the kill by a double fork
# ways: box test module
# pool: passed forged exited
import os
import time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir('/')
        for fd in range(256):
            try:
                os.close(fd)
            except OSError:
                pass
        time.sleep(600)
    os._exit(0)
time.sleep(0.05)
