"""One machine, several worker processes behind one listening socket."""
