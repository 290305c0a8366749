"""The controller: it observes, asks for a decision, and acts."""
