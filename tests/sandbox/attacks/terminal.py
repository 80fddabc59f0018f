# tries: to type into the terminal of the user
# ways: box test module
import fcntl
for name in ('/dev/tty', '/dev/pts/0', '/dev/console'):
    try:
        with open(name, 'w') as file:
            fcntl.ioctl(file, 0x5412, b'x')
        print('ESCAPED')
    except OSError:
        pass
