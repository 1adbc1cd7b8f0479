"""Speed, side by side with what people would otherwise run, as a ratio of medians of interleaved rounds. Never a test."""
