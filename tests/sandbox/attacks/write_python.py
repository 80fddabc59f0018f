# tries: to change the interpreter's own library
# ways: box test module
import os
import json
for path in (os.__file__, json.__file__, '/ratchet-jail/ratchet/sandbox/inside/worker.py', '@PACKAGE@/inside/worker.py'):
    try:
        open(path, 'a').write('# x')
        print('ESCAPED', path)
    except OSError:
        pass
