"""Who may call what. Answers come from memory."""
