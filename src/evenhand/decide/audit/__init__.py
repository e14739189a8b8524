"""What is wrong with an experiment before anyone believes it: one check a fault, as a table."""
