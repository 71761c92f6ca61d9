"""What depends on the platform: chunks, threads, workarounds."""
