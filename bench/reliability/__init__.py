"""Real servers in trouble: fuzz, overload, mishaps, a long run. Results belong into docs/reliability.md."""
