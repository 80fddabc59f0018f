# tries: to hold its place without using anything
# ways: box test module
# box: wall
# pool: timeout
import time
time.sleep(10 ** 6)
