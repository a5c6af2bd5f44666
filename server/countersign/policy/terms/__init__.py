"""What a rule can ask about: every attribute, how it is read from a request, and how its values match."""
