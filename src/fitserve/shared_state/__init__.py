"""What the processes of one server, and one start and the next, know together: in files, without a server for it."""
