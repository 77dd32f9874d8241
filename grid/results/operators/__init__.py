"""Where the time of a network goes, beside that of its float network, and what makes the difference."""
