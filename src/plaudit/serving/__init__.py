"""The door for programs: a trained model behind the endpoints that clients of OpenAI know, by FastAPI.

Open ``app.py`` first: it has the routes. ``bodies.py`` reads requests, ``answers.py`` writes responses, ``host.py``
holds what answers them (engine, reward model, feedback store), ``gate.py`` stands in front: keys, hosts, sizes.
The tokens are drawn by `plaudit.generation.live`, behind the protocol of `plaudit.live`.
"""
