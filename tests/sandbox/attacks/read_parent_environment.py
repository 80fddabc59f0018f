# tries: to read secrets from environments
# ways: box test module
import os
if 'RATCHET_SECRET' in os.environ:
    print('ESCAPED own')
for n in ['self', 'thread-self', '@PARENT@', *map(str, range(1, 200))]:
    for name in ('environ', 'cmdline', 'mem', 'maps'):
        try:
            data = open(f'/proc/{n}/{name}', 'rb').read(100000)
        except (OSError, ValueError, OverflowError):
            continue
        if b'@SECRET@' in data:
            print('ESCAPED', n, name)
