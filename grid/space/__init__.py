"""What was asked: settings, and search spaces read and checked."""
