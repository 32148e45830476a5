"""Commit, pull and restore: each a mover with step(now); none imports another."""
