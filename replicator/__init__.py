"""Towline: pull-based, journaled replication for block volumes."""

__version__ = "0.1.0"
