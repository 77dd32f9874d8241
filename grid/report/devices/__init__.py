"""The devices that latencies were measured on, as a part of the report."""
