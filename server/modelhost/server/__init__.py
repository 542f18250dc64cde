"""The ModelHost server: API, control plane, serving plane, access and store in one process."""
