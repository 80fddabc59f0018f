# tries: to read a file of the parent
# ways: box test module
for path in ('@SECRET_FILE@', '@PACKAGE@/../../README.md', '/etc/shadow', '/root/.bashrc', '/proc/1/root@SECRET_FILE@', '/old_root@SECRET_FILE@'):
    try:
        print('ESCAPED', path, open(path).read()[:20])
    except OSError:
        pass
