"""Types into a shell of bigpeer on a terminal, and waits for what it should show. Arguments: the command."""

import os
import pty
import select
import sys
import time

child, terminal = pty.fork()
if child == 0:
    os.execvp(sys.argv[1], sys.argv[1:])

shown = b""


def until(text, seconds=60):
    """Reads until `text` was shown; what was shown before is gone then."""
    global shown
    deadline = time.monotonic() + seconds
    while text.encode() not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            sys.exit(f"'{text}' was not shown, but:\n{shown.decode(errors='replace')}")
        try:
            shown += os.read(terminal, 4096)
        except OSError:
            sys.exit(f"the shell ended before '{text}':\n{shown.decode(errors='replace')}")
    shown = shown[shown.index(text.encode()) + len(text.encode()) :]


def type_(text):
    os.write(terminal, text.encode())


until("ql> ")
# Tab completes the field of the only collection, and after FROM the collection.
type_("SELECT regis\t")
until("registration")
type_(" FROM veh\t")
until("vehicles")
# The statement goes on in the next line until it has ended.
type_("\rWHERE _id = 1;\r")
until("─")
until("W 1")
until("1 row, ")
until("ql> ")
type_("\\d vehicles\r")
until("registration")
type_("SELECT nonsense FROM;\r")
until("error: ")
until("ql> ")
type_("\\q\r")
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
