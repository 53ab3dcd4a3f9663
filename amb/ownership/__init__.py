"""What an owner and a judge do: protect, commit, verify, show evidence, judge."""
