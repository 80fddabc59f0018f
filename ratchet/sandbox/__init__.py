"""Runs code that a policy wrote: files and a command in, a value out; checks of functions in a few milliseconds.

    box.py       what a box is                 choose.py      which one a run gets
    bubblewrap.py, linux.py, container.py      what makes it  lease.py, cgroup.py  who runs, and what is swept
    pool.py      warm workers for checks       program.py     what a check is, and what may become of it
    inside/      what runs in a jail: the standard library only

Owns isolation, limits and verdicts; decides nothing about rewards.

**What no box here protects against.** A hole in the kernel: untrusted code makes system calls on the kernel that we run
on, filtered but real; who needs more runs Ratchet in a virtual machine. Side channels: the time of calls, caches, load.
Slowness: code within its limits may use all of them, and the CPU's sum over processes is bounded by wall time only.
Reading what a box is shown: /usr, this Python and its installed packages (the module under test must not be among
them), and the paths of `sandbox.readable`. What a program prints or names, which is a stranger's text: show it, never
run it. A `Box` reports an exit code, and any program can exit with 0: whether tests passed is asked of `CheckPool`,
which runs test and module in processes of their own, not of an exit code of code that one may rewrite.
Where a layer is missing, `layers` lacks its name; with `sandbox.allow_unsafe` there is none but limits, and nothing
of the above holds.
"""
