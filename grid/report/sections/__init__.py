"""The sections of a report: each is a function from its inputs to a section, or None where there is nothing to say."""
