# tries: to fill shared memory
# ways: box test module
try:
    for n in range(3000):
        with open(f'/dev/shm/ratchet-escaped-{n}', 'wb') as file:
            file.write(b'x' * (1 << 20))
    print('ESCAPED')
except (OSError, MemoryError) as error:
    print('refused', error)
