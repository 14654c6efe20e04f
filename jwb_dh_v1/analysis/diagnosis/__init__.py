"""What went wrong in a run, by explicit rules with their evidence."""
