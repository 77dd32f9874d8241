"""What a recipe does to a network. Knows nothing of Ray, MLflow or YAML."""
