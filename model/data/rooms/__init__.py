"""The built-in data: rooms, rendered."""
