"""`modelhost.v1.Admin`, by resource."""
