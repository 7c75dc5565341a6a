"""The exercises of each lesson: what the student fills in, and how it is judged."""
