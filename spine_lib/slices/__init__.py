"""Lesson 3: from volumes to slices, and from few slices to many."""
