"""Ridge regression with one damping for each group of features, learned."""
