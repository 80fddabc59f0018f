# tries: to print without end
# ways: box test module
# box: output
# pool: killed
import os
while True:
    os.write(1, b'x' * 65536)
