# tries: to take all memory at once
# ways: box test module
# box: memory
# pool: memory
x = bytearray(1 << 40)
