"""Variable projection on the data sets of NIST."""
