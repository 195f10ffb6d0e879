"""The processes of one server as one: what they serve, and how all of them change it, or none."""
