# tries: to take all memory with many processes, each below its limit
# ways: box test module
# box: memory wall cpu
# pool: memory timeout forged killed
import os
import time
for _ in range(6):
    if os.fork() == 0:
        break
x = []
try:
    while True:
        x.append(b'x' * (1 << 20))
except MemoryError:
    time.sleep(1000)
