"""Figures with intervals, and the rules for votes. The ground floor: imports nothing else of Plaudit, knows no file.

Which module for what:

| question | module |
|---|---|
| a share that was counted, each row independent: how sure is it? | `intervals.counted`, `intervals.wilson` |
| a share or a mean over rows that belong to prompts | `clustered.share`, `clustered.mean_over` |
| before and after on the same prompts | `clustered.paired_difference` |
| any other figure (agreement between people, strengths): an interval from draws | `resampling` |
| do scores order responses as people do? | `ranking` |
| does the model know how sure it may be? | `calibration` |
| how far do the words alone get? | `bag_of_words` |
| who wins among a few votes on two responses? | `majority` |
| who is strongest among many that met in pairs? | `bradley_terry` |
| a win rate judged in both orders, or with length taken out | `wins` |
| which words does one side use more than the other? | `log_odds` |

`intervals` and `majority` need the standard library only, so that commands which count rows start fast.
"""
