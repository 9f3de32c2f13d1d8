"""A sensor that is alive and wrong is found by the others: pairwise witnesses, a running judge, a policy."""
