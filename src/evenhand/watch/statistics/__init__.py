"""What a probability sample of reviews says: sampling, estimates, sequences, alarms. No I/O."""
