# tries: to reach the network
# ways: box test module
import socket
for kind, address in ((socket.SOCK_STREAM, ('1.1.1.1', 53)), (socket.SOCK_DGRAM, ('8.8.8.8', 53))):
    try:
        s = socket.socket(socket.AF_INET, kind)
        s.settimeout(0.2)
        s.connect(address)
        s.send(b'x')
        print('ESCAPED')
    except OSError:
        pass
