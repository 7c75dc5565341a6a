"""Lesson 2: read a label map under the right scheme, and find what is wrong with it."""
