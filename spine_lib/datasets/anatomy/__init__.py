"""The parts that a phantom is made of; `datasets.phantom` puts them together."""
