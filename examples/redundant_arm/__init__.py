"""Inverse kinematics of an arm of seven joints."""
