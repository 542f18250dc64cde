"""`inference.GRPCInferenceService`: the Open Inference Protocol over the services and deployments that there are."""
