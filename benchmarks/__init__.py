"""Speed beside that of the usual alternatives, as a ratio of medians of interleaved rounds. Never a test."""
