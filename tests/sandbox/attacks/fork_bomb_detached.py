# tries: to fill the process table with sessions of their own
# ways: box test module
# box: wall cpu memory processes
# pool: timeout memory forged killed exited
import os
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
