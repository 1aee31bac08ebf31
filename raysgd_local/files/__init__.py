"""Where the journal's command was before `raysgd-local replay`."""
