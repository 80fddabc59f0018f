# tries: to reach outside by a link in its own folder
# ways: box test module
import os
try:
    os.symlink('@SECRET_FILE@', 'link')
    print('ESCAPED', open('link').read())
except OSError:
    pass
try:
    os.symlink('@FOLDER@', 'folder')
    open('folder/ratchet-escaped-link', 'w').write('x')
    print('ESCAPED')
except OSError:
    pass
