# tries: to reach a server on this machine
# ways: box test module
import socket
try:
    s = socket.create_connection(('127.0.0.1', @PORT@), timeout=0.2)
    print('ESCAPED')
except OSError:
    pass
