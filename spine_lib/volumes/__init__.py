"""Lesson 9: from slices to the mask of a whole scan, and what is measured on it."""
