# tries: to kill every process it may
# ways: box test module
import os
import signal
for target in (-1, -@PARENT@, 0):
    try:
        os.kill(target, signal.SIGKILL)
    except OSError:
        pass
