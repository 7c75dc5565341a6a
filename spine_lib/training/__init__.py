"""Lesson 6: recipes, losses, loaders and the training itself."""
