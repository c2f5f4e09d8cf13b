"""What `experiments.report` is made of: measures of runs, statistics, figures, the page."""
