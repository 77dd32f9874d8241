"""Where and when things run: search space, plan, stages, scheduling, measuring, tracking, reporting."""
