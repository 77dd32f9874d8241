"""ExecuTorch on a device without torch: libraries of its wheel, and a small one that Python calls."""
