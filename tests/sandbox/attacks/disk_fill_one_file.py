# tries: to fill the disk with one file
# ways: box test module
import os
try:
    with open('big', 'wb') as file:
        for _ in range(10 ** 5):
            file.write(b'x' * (1 << 20))
    print('ESCAPED')
except OSError as error:
    print('refused', error)
