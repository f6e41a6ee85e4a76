"""Rewards that another machine gives: a reward server (`http`), and a model that is asked as a judge (`judge`).

Both send their requests through `transport`. A judge's questions and its replies are plain texts (`questions`), its
endpoint is asked in the words of OpenAI's chat completions (`chat`), and what was answered is kept (`answers`).
"""
