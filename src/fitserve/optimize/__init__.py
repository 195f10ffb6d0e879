"""Models compiled to engines, and the proof that an engine answers as the library does."""
