# tries: to print without end from a child that outlives its parent
# ways: box test module
# box: output none
# pool: killed exited
import os
if os.fork() == 0:
    while True:
        os.write(1, b'x' * 65536)
os._exit(0)
