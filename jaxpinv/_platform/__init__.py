"""What depends on where a program runs: plans, constants of speed, loops, workarounds."""
