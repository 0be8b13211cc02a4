"""Many editors at work on one server, for long: whether it stays fair, free of errors, and small."""
