# tries: to leave with success when called
# ways: module
import os
def f(x):
    os._exit(0)
