# tries: to take open files and folders of other processes
# ways: box test module
import os
for n in ['@PARENT@', str(os.getppid()), *map(str, range(1, 200))]:
    if n in (str(os.getpid()), '0'):
        continue
    for name in ('root', 'cwd'):
        try:
            found = os.listdir(f'/proc/{n}/{name}@FOLDER@')
            if 'secret.txt' in found:
                print('ESCAPED', n, name)
        except OSError:
            pass
    try:
        for fd in os.listdir(f'/proc/{n}/fd'):
            os.open(f'/proc/{n}/fd/{fd}', os.O_RDWR)
            print('ESCAPED', n, fd)
    except OSError:
        pass
