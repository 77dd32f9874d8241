"""What is learned from pictures, and how it is judged: depth and the other built-in tasks, and those of the user."""
