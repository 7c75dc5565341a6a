"""The seed of the inputs that answers are graded on; left out of the students' copy.

A copy without this file checks on the open inputs alone, shows no solution and grades nobody. An
instructor may choose another seed for a class.
"""

SEED = 31
