"""The replicatord process: threads, signals, control socket."""
