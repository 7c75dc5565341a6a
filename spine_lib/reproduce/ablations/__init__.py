"""Ablations: what does one setting of a run bring?  One is changed, everything else stays.

`spine ablate loss` trains short runs with every loss and scores them on patients that they have
not seen.  The paper does not say which plane, loss or split it used; here is measured, small, how
much each of them matters.

- `variants`: what is changed, and against what it is compared.
- `folds`: who is trained on and who is scored; the test pair is neither.
- `parts`: some volumes or slices of a store, as a store.
- `scoring`: Dice of a trained network on the patients left out, remembered.
- `comparing`: differences by patient, intervals, p-values, and what they allow one to say.
- `collecting`: what is written down of it.
- `running`: all of it as one call that goes on where it was stopped.
- `words`, `page`: the table as text, as Markdown, and on a page with a plot.
- `kept`: what was measured on the built-in data and came with the project.
"""
