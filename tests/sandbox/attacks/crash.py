# tries: to end the interpreter in C
# ways: box test module
# pool: killed
import ctypes
ctypes.string_at(0)
