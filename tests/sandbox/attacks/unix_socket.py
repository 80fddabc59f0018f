# tries: to reach a local service by its socket
# ways: box test module
import socket
for path in ('@FOLDER@/service', '\0ratchet-service', '/var/run/docker.sock', '/run/systemd/private'):
    try:
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        print('ESCAPED', path)
    except OSError:
        pass
