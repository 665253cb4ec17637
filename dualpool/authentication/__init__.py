"""Who may come in: users' files, host-based rules, questions to servers, and how the answers become an account."""
