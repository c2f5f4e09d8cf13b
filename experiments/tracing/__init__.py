"""What `experiments.trace` is made of: the order of a run's tasks, and a file for each format."""
