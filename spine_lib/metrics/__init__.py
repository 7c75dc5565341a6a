"""Lesson 7: overlap, surface distance, regions, intervals and tests."""
