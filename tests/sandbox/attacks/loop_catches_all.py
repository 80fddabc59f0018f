# tries: to catch whatever would stop it
# ways: box test module
# box: wall cpu
# pool: timeout
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
