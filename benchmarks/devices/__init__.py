"""The runner of devices beside the profiling actor."""
