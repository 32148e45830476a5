"""A consistency group at one site: its journal, volumes, movers and peers put together."""
