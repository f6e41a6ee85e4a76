"""Several runs on one page: what they were told, what came of each, and their rewards at equal distance."""
