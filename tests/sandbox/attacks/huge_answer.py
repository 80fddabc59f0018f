# tries: to choke the test with its answer
# ways: module
def f(x):
    return 'x' * (200 << 20)
