# tries: to never answer
# ways: module
import time
def f(x):
    time.sleep(1000)
