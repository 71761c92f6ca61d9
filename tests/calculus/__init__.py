"""The derivatives: multilinear forms of the factors."""
