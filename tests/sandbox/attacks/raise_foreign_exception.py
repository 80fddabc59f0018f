# tries: to raise what ends the test quietly
# ways: module
class Exit(BaseException):
    pass
class Skipped(BaseException):
    pass
def f(x):
    raise Skipped('skipped')
