"""What a response is worth: models, classifiers, functions, rules and servers behind one protocol, `runtime.Reward`.

`build` makes one reward of the tables of a job; `signature` says what a user's function is given; `isolation` runs it
in a process of its own (`worker`). A new kind is a table in `plaudit.jobs.reward_tables`, a file here, and a line in
`build`.
"""
