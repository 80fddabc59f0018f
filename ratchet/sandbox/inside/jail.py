"""The entry: python -I -S jail.py CONTROL. Reads what to do from the control socket and does it confined.

Run as a file, so it first puts its own package on the path; `ratchet` is an empty name in the jail but for this folder.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    sys.path.insert(0, os.path.abspath(__file__).removesuffix("/ratchet/sandbox/inside/jail.py"))

from ratchet.sandbox import inside
from ratchet.sandbox.inside import command, confine, frame, kernel, namespaces


def main(control: int) -> None:
    spec = frame.read(control)
    if not isinstance(spec, dict):
        return  # the outside has gone
    kernel.die_with_parent()
    kernel.hide_memory()
    if spec["namespaces"]:
        namespaces.enter(spec)
    inside.__path__ = [str(spec["home"])]  # where this package lies from now on
    uid, scratch = spec["uid"], str(spec["scratch"])
    if uid is not None:
        os.chown(scratch, uid, uid)
        confine.become(uid)
        kernel.die_with_parent()  # a change of user takes both back
        kernel.hide_memory()
    os.chdir(scratch)
    kernel.adopt_orphans()
    if spec["mode"] == "command":
        command.run(spec, control)
    else:
        from ratchet.sandbox.inside import worker

        worker.serve(spec, control)


if __name__ == "__main__":
    main(int(sys.argv[1]))
