# tries: to stop the runner
# ways: module
def f(x):
    raise KeyboardInterrupt
