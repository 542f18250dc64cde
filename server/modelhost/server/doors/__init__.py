"""Doors turn bytes on a port into transport-free calls. Nothing outside a door imports a transport's server types."""
