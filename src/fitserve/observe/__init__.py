"""What the server tells of itself. One file is one observer."""
