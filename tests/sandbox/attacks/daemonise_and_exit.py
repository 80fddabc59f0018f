# tries: to outlive the kill by a child that waits while its parent leaves
# ways: box test module
# pool: exited
import os
import time
if os.fork() == 0:
    os.setsid()
    os.close(0)
    os.close(1)
    os.close(2)
    time.sleep(600)
os._exit(0)
