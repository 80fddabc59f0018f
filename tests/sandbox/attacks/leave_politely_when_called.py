# tries: to end the test by SystemExit
# ways: module
def f(x):
    raise SystemExit(0)
