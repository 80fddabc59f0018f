# tries: to never end within C code
# ways: box test module
# box: wall cpu
# pool: timeout
import re
re.match(r'(a+)+$', 'a' * 60 + 'b')
