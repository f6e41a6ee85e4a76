"""The pages that people see, rendered on the server from ``annotate/templates``.

One module for each role: ``work.py`` (annotators; open it first), ``review.py`` (reviewers), ``admin.py`` and
``account.py``. ``forms.py`` reads answers out of forms, ``markup.py`` makes texts safe, ``figures.py`` and
``charts.py`` draw the reviewers' plots.
"""
