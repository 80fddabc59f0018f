# tries: to take all memory piece by piece
# ways: box test module
# box: memory wall cpu
# pool: memory timeout
x = []
while True:
    x.append(bytearray(1 << 20))
