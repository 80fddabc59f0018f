# tries: to turn the number two into another one
# ways: module
import ctypes
import sys
ctypes.memmove(id(41) + 24, id(2) + 24, 4)
def f(x):
    return 41 + 1 - 1 if x else 40
