# tries: to gain rights from a set-uid program
# ways: box test module
import subprocess
for command in (['su', '-c', 'id'], ['mount', '-t', 'tmpfs', 'none', '/tmp'], ['sudo', '-n', 'id']):
    try:
        done = subprocess.run(command, capture_output=True, timeout=0.5, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            print('ESCAPED', command)
    except (OSError, subprocess.SubprocessError):
        pass
