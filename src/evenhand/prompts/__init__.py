"""Prompt files, how they are rendered around a post, and how a free answer is read."""
