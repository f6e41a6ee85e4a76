"""What the report card of a reward model is made of, computed from the scores of held-out rows and nothing else.

| question | module |
|---|---|
| where does it rank right, and how often does it find the best? | `breakdown` |
| has it learned more than length and words, and does it read what it scores? | `shortcuts` |
| does it know how sure it may be? | `certainty` |
| what of all that is a reason to be wary? | `warnings` |
"""
