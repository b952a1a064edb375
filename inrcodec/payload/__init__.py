"""What the sections of a stream hold, one file per system."""
