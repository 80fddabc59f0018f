# tries: to change the kernel's settings
# ways: box test module
for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/sys/vm/drop_caches', '/proc/sys/user/max_user_namespaces'):
    try:
        open(path, 'r+').close()
        print('ESCAPED', path)
    except OSError:
        pass
