"""The loop over optimizer steps, and what it writes. Knows no method."""
