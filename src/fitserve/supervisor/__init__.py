"""One machine, several worker processes behind one listening socket."""

STOPPED, KILLED, STOPPED_AT_ONCE = 0, 3, 130
"""Exit codes: stopped and everything answered; a worker had to be killed; Ctrl-C was pressed twice."""
