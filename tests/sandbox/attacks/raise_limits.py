# tries: to lift its own limits
# ways: box test module
import resource
for which in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
    soft, hard = resource.getrlimit(which)
    try:
        resource.setrlimit(which, (hard + 10, hard + 10))
        print('ESCAPED', which)
    except (OSError, ValueError):
        pass
