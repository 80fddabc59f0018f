# tries: to ignore every signal that could end it
# ways: box test module
# box: wall cpu
# pool: timeout
import signal
for n in range(1, 65):
    try:
        signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
