"""What a run would take on a cluster: memory of each GPU by arithmetic (`fit.py`), time from runs (`times.py`)."""
