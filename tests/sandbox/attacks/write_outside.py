# tries: to write where others read
# ways: box test module
import os
for folder in ('/', '/tmp/..', '/usr', '/usr/lib', '/etc', '/var/tmp', '/root', '/dev', '/dev/shm/..', '/run', '/work', '/work/main', '@FOLDER@', os.path.dirname(os.__file__)):
    try:
        open(os.path.join(folder, 'ratchet-escaped-write'), 'w').write('x')
        print('ESCAPED', folder)
    except OSError:
        pass
