"""What is measured of a policy's responses beside its reward, each file for one question. Pure functions over rows.

| question | module |
|---|---|
| does it win against its start, in both orders and at equal length, and what do people say? | `winning` |
| how far is it from its start, and how does each read what the other writes? | `distance` |
| how does it write: endings, repetition, diversity, phrases? | `wording` |
| what does it refuse, and what does it answer that it should not? | `refusals` |
| what has it forgotten of texts that it was not trained on with the reward? | `forgetting` |
"""
