"""What one stage does, without Ray."""
