"""Lesson 1: load a CT, in HU, on its grid."""
