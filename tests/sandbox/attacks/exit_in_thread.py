# tries: to look passed by leaving from a thread
# ways: test module
# pool: exited
import os
import threading
import time
threading.Thread(target=lambda: os._exit(0)).start()
time.sleep(5)
