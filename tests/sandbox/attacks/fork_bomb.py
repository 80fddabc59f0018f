# tries: to fill the process table
# ways: box test module
# box: wall cpu memory processes
# pool: timeout memory forged killed exited
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
