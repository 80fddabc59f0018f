# tries: to fill the disk with many files
# ways: box test module
import os
n = 0
try:
    while n < 3000:
        with open(f'big{n}', 'wb') as file:
            file.write(b'x' * (1 << 20))
        n += 1
    print('ESCAPED')
except (OSError, MemoryError) as error:
    print('refused', n)
