"""Lesson 8: the whole experiment, its evaluation and its report."""
