# tries: to hold a file of others by a hard link
# ways: box test module
import os
for path in ('@SECRET_FILE@', '/etc/passwd', '/etc/shadow', os.__file__):
    try:
        os.link(path, 'hard')
        print('ESCAPED', path)
    except OSError:
        pass
