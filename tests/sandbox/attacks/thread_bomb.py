# tries: to fill the process table with threads
# ways: box test module
# box: wall cpu memory processes
# pool: timeout memory killed
import threading
import time
while True:
    try:
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    except (RuntimeError, MemoryError):
        pass
