# tries: to be the last that is killed for memory
# ways: box test module
try:
    open('/proc/self/oom_score_adj', 'w').write('-1000')
    print('ESCAPED')
except OSError:
    pass
