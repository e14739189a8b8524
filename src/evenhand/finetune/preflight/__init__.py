"""What a training will take on this machine, and whether it computes rightly, found beforehand."""
