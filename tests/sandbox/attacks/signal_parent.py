# tries: to kill the run
# ways: box test module
import os
import signal
for pid in (@PARENT@, os.getppid()):
    if pid <= 1:
        continue
    try:
        os.kill(pid, signal.SIGTERM)
        print('ESCAPED', pid)
    except OSError:
        pass
