# tries: to leave by a signal
# ways: test module
# pool: exited killed passed
import os
os.kill(os.getpid(), 9)
os.abort()
