# tries: to never end
# ways: box test module
# box: wall cpu
# pool: timeout
while True:
    pass
