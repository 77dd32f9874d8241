"""Where the time goes: the section of a report, and its picture."""
