# tries: to have itself skipped
# ways: module
def f(x):
    try:
        import pytest
    except ImportError:
        raise AssertionError
    pytest.skip('not today')
