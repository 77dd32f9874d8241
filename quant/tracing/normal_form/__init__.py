"""The passes that bring a graph into normal form, one file each."""
