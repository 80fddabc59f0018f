# tries: to leave folders that cannot be removed
# ways: box test module
import os
try:
    os.makedirs('a/b/c')
    open('a/b/c/file', 'w').write('x')
    os.symlink('@FOLDER@', 'a/b/link')
    os.chmod('a/b/c', 0)
    os.chmod('a', 0)
except OSError:
    pass
