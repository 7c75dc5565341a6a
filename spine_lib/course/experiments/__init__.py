"""Measurements that take too long for a lesson; `spine lesson-results` runs and keeps them."""
