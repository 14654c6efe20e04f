"""From samples to a result: the plan, shards, executors, and what a result holds."""
