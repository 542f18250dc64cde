"""What should be and what is: deployments and revisions, and the reconciler that brings the one to the other."""
