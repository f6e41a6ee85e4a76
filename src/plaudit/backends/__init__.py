"""Who runs the models of a job: each builder gives the parts behind the protocols of `plaudit.runtime`."""
