"""One training loop for every method, its configuration, checkpoints and evaluation over sensor subsets."""
