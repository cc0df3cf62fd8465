"""A store of checkpoints in memory."""


class Memory:
    """Remembers the last state."""

    def __init__(self):
        self.kept = None

    def save(self, state, stage, step):
        """Keep copies."""
        self.kept = ({name: value.clone() for name, value in state.items()}, stage, step)

    def load(self):
        """The last state kept."""
        return self.kept
