"""Products by an approximate multiplier on an ordinary processor: exactly through its table, or as a few exact ones."""
