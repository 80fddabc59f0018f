# tries: to offer a server
# ways: box test module
import socket
try:
    s = socket.socket()
    s.bind(('0.0.0.0', 0))
    s.listen()
    print('ESCAPED')
except OSError:
    pass
