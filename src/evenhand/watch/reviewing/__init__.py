"""People's work: the queue, its acts, users, golden posts, agreement, Label Studio."""
