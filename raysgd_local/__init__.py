"""raysgd_local."""
