# tries: to never end within one multiplication
# ways: box test module
# box: wall cpu memory
# pool: timeout memory
print(len(str(10 ** 10 ** 10)))
