# tries: to use up the table of open files
# ways: box test module
held = []
try:
    for _ in range(5000):
        held.append(open('/dev/null'))
    print('ESCAPED')
except OSError:
    held.clear()
