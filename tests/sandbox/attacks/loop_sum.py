# tries: to never end within one builtin
# ways: box test module
# box: wall cpu
# pool: timeout
sum(range(10 ** 15))
