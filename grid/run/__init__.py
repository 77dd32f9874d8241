"""One run, seen from the driver."""
