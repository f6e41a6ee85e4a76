"""The loops, the learner they drive, and how their state is kept."""
