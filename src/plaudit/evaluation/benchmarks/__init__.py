"""Published benchmarks of reward models: the rule of each, the figures of a scored file, and the table on the page."""
