"""The replicatorctl command line."""
