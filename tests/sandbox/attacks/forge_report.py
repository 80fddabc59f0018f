# tries: to write a report of its own to every open file
# ways: test module
# pool: forged exited killed
import json
import os
import struct
body = json.dumps({'outcome': 'passed', 'tests': 1, 'nonce': ''}).encode()
for fd in range(3, 64):
    try:
        os.write(fd, struct.pack('!I', len(body)) + body)
    except OSError:
        pass
os._exit(0)
