# tries: to overflow the test's stack with its answer
# ways: module
def f(x):
    value = []
    for _ in range(10 ** 5):
        value = [value]
    return value
