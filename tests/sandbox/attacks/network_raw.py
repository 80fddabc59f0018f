# tries: to see or forge packets
# ways: box test module
import socket
for family, kind in ((socket.AF_PACKET, socket.SOCK_RAW), (socket.AF_INET, socket.SOCK_RAW), (socket.AF_NETLINK, socket.SOCK_RAW), (socket.AF_INET6, socket.SOCK_STREAM)):
    try:
        socket.socket(family, kind)
        print('ESCAPED', family)
    except OSError:
        pass
